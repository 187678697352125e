"""The session against the recognizer it is made of: same audio, same words, whatever happens meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from demo_helpers import (
    BUNDLE,
    INT8,
    SAMPLES,
    Feed,
    Watched,
    quiet,
    recognizer,
    running,
    sample,
    settings,
    speech,
    transcribed,
)

from demo.events import Ended, Failed, Final, Heard, Meters, Notice, Opened, Partial, Ready, Severity
from demo.session import Session
from demo.settings import Settings
from edge.runtime import load_audio


def test_text_and_times_are_those_of_the_recognizer() -> None:
    chosen = settings(chunk_ms=320.0)
    audio = speech(0, 1)
    expected = transcribed(audio, chosen.decode())
    assert len(expected) == 2
    with running(chosen) as watched:
        watched.heard(Feed(audio))
        assert watched.results() == expected
        assert watched.session.transcript().text == "\n".join(result.text for result in expected)
        words = [word for utterance in watched.session.transcript().utterances for word in utterance.words]
        assert words == [word for result in expected for word in result.words]


def test_a_file_of_another_rate(tmp_path: Path) -> None:
    stereo = np.stack([soxr.resample(sample(1), 16000, 44100)] * 2, axis=1)
    path = tmp_path / "stereo.flac"
    soundfile.write(path, stereo, 44100)
    samples, rate = load_audio(path)
    expected = list(recognizer().transcribe(samples, rate, settings().decode()))
    with running(settings()) as watched:
        watched.session.play(path, None)
        watched.kind(Ended)
        assert watched.texts() == [result.text for result in expected] != []
        opened = watched.of(Opened)[0]
        assert (opened.name, opened.rate, opened.live) == ("stereo.flac", 44100, False)


@pytest.mark.parametrize(
    "change",
    [{"chunk_ms": 320.0}, {"chunk_ms": 1280.0}, {"left_chunks": 2}, {"rescoring": False}, {"bundle": INT8}],
    ids=lambda change: "-".join(change),
)
def test_settings_change_in_the_middle_of_an_utterance(change: dict[str, Any]) -> None:
    after = settings(**change)
    audio = speech(0)
    with running(settings()) as watched:
        feed = Feed(audio, limit=1.7)
        watched.hear(feed)
        watched.until(lambda event: isinstance(event, Partial) and event.result.text.count(" ") >= 1)
        watched.session.apply(after)
        ready = watched.kind(Ready)
        feed.allow(None)
        watched.kind(Ended)
        assert ready.lanes[0].chunk_ms == after.chunk_ms
        assert watched.session.settings == after
        # Heard again from the utterance's first sample, or, where only chunks differ, gone on with and heard as a whole
        # by the second pass: as if the new settings had been there from the start.
        assert watched.results() == transcribed(audio, after.decode(), after.bundle)
        ends = [event.result.end_ms for event in watched.of(Partial)]
        assert ends == sorted(ends), "time jumped back"


def test_settings_change_in_a_later_utterance() -> None:
    after = settings(chunk_ms=320.0)
    audio = speech(1, 0)
    first = transcribed(audio, settings().decode())[0]
    with running(settings()) as watched:
        feed = Feed(audio, limit=first.end_ms / 1000 + 1.5)
        watched.hear(feed)
        watched.until(lambda event: isinstance(event, Final))
        watched.until(lambda event: isinstance(event, Partial) and bool(event.result.text))
        watched.session.apply(after)
        watched.kind(Ready)
        feed.allow(None)
        watched.kind(Ended)
        begin = round(first.end_ms * 16)
        second = transcribed(audio[begin:], after.decode())
        assert watched.texts() == [first.text, *(result.text for result in second)]
        assert [result.segment for result in watched.results()] == [0, 1]
        shown = watched.results()[1].words
        expected = [word.start_ms + first.end_ms for result in second for word in result.words]
        assert [word.start_ms for word in shown] == expected


def test_what_is_refused_changes_nothing() -> None:
    audio = speech(0)
    with running(settings()) as watched:
        feed = Feed(audio, limit=1.0)
        watched.hear(feed)
        watched.until(lambda event: isinstance(event, Partial))
        for wrong in (
            settings(chunk_ms=333.0),
            settings(bundle=Path("/nonexistent")),
            settings(engine="abacus"),
            settings(compare=Path("/nonexistent")),
        ):
            watched.session.apply(wrong)
            notice = watched.until(lambda event: isinstance(event, Notice) and event.topic == "settings")
            assert isinstance(notice, Notice) and notice.severity is Severity.ERROR
            assert "stay in force" in notice.text
        assert watched.session.settings == settings()
        feed.allow(None)
        watched.kind(Ended)
        assert watched.results() == transcribed(audio, settings().decode())


def test_going_back_needs_no_loading() -> None:
    with running(settings()) as watched:
        worker = watched.session._worker
        first = worker._lanes[0].prepared.recognizer
        for bundle in (INT8, BUNDLE):
            watched.session.apply(settings(bundle=bundle))
            watched.kind(Ready)
        assert worker._lanes[0].prepared.recognizer is first


def test_each_lane_of_a_comparison_says_what_it_says_alone() -> None:
    chosen = settings(compare=INT8)
    audio = speech(0, 2)
    with running(chosen) as watched:
        watched.heard(Feed(audio))
        for lane, bundle in enumerate((BUNDLE, INT8)):
            assert watched.results(lane) == transcribed(audio, chosen.decode(), bundle)
            assert watched.session.transcript(lane).utterances[0].text == watched.texts(lane)[0]
            assert watched.of(Meters, lane)
        assert [lane.scheme for lane in watched.of(Ready)[0].lanes] == ["fp32", "static"]


def test_a_second_bundle_joins_and_leaves() -> None:
    audio = speech(0, 1)
    with running(settings()) as watched:
        feed = Feed(audio, limit=1.5)
        watched.hear(feed)
        watched.until(lambda event: isinstance(event, Partial) and bool(event.result.text))
        watched.session.apply(settings(compare=INT8))
        watched.kind(Ready)
        kept = watched.session._worker._lanes[0]
        feed.allow(sample(0).size / 16000 + 1.6)
        watched.until(lambda event: isinstance(event, Final) and event.lane == 1)
        watched.session.apply(settings())
        watched.kind(Ready)
        assert watched.session._worker._lanes == [kept], "the first lane had no reason to begin anew"
        feed.allow(None)
        watched.kind(Ended)
        assert watched.results(0) == transcribed(audio, settings().decode())
        assert watched.texts(1) == [transcribed(audio, settings().decode(), INT8)[0].text]


def test_lost_audio_ends_the_utterance() -> None:
    audio = np.concatenate([sample(0), sample(1)])
    seconds = len(sample(0)) / 16000
    with running(settings()) as watched:
        watched.heard(Feed(audio, gaps={seconds: 3000.0}))
        expected = [transcribed(sample(index), settings().decode())[0].text for index in (0, 1)]
        assert watched.texts() == expected
        assert watched.results()[1].words[0].start_ms > 1000 * seconds, "the clock counts what was delivered"


def test_finish_ends_the_utterance_now() -> None:
    audio = speech(0)
    with running(settings()) as watched:
        feed = Feed(audio, limit=1.5)
        watched.hear(feed)
        while watched.session._worker._lanes[0].position < 24000:
            time.sleep(0.01)
        watched.session.finish()
        final = watched.kind(Final)
        assert final.result.text == transcribed(audio[:24000], settings().decode())[0].text
        watched.session.stop()
        assert watched.kind(Ended).reason == "stopped"
        assert feed.closed


def test_a_live_source_that_stalls_ends_the_utterance() -> None:
    feed = Feed(speech(0), limit=1.5)
    feed.live = True  # type: ignore[misc]
    with running(settings()) as watched:
        watched.hear(feed)
        assert watched.kind(Final).result.text  # although nothing more came


def test_the_next_source_waits_for_what_the_last_one_left() -> None:
    with running(settings()) as watched:
        first = Feed(sample(0))
        watched.hear(first)
        watched.kind(Heard)
        watched.hear(Feed(sample(1)))
        watched.kind(Ended)
        watched.kind(Ended)
        assert first.closed
        order = [type(event) for event in watched.events if isinstance(event, (Opened, Ended))]
        assert order == [Opened, Ended, Opened, Ended]
        sources = [utterance.source for utterance in watched.session.transcript().utterances]
        assert sources == sorted(sources) and sources[-1] == 1


class _Broken(Feed):
    def read(self, timeout_s: float) -> Any:
        if self._at > 16000:
            raise OSError("the device is on fire")
        return super().read(timeout_s)


def test_a_source_that_fails_is_told_and_the_text_kept() -> None:
    with running(settings()) as watched:
        watched.heard(_Broken(sample(0)))
        notice = watched.notices("microphone")[-1]
        assert notice.severity is Severity.ERROR and "on fire" in notice.text
        assert watched.texts() == ["seven"]

        def refuse() -> Any:
            raise RuntimeError("no such thing")

        watched.session.hear(refuse)
        watched.kind(Ended)
        assert "no such thing" in watched.notices("microphone")[-1].text
        watched.heard(Feed(sample(1)))
        assert watched.texts()[-1] == transcribed(sample(1), settings().decode())[0].text


def test_samples_that_are_not_numbers() -> None:
    audio = sample(0).copy()
    audio[10000:10010] = np.nan
    with running(settings()) as watched:
        watched.heard(Feed(audio))
        assert watched.notices("microphone")
        assert watched.results() == transcribed(np.nan_to_num(audio), settings().decode())


def test_a_failing_engine_stops_the_session_until_settings_change() -> None:
    with running(settings()) as watched:
        lane = watched.session._worker._lanes[0]

        def fail(*_: Any) -> Any:
            raise RuntimeError("out of memory")

        backend = lane.prepared.recognizer.backend
        step, backend.step = backend.step, fail  # type: ignore[method-assign]
        watched.hear(Feed(sample(0)))
        failed = watched.until(lambda event: isinstance(event, Failed))
        assert isinstance(failed, Failed) and "out of memory" in failed.text
        backend.step = step  # type: ignore[method-assign]
        watched.session.apply(settings())
        watched.kind(Ready)
        watched.heard(Feed(sample(0)))
        assert watched.results() == transcribed(sample(0), settings().decode())


def test_nothing_to_load_is_failed() -> None:
    session = Session(Settings(Path("/nonexistent")))
    session.start()
    try:
        failed = Watched(session).until(lambda event: isinstance(event, Failed))
        assert isinstance(failed, Failed) and "/nonexistent" in failed.text
    finally:
        assert session.close()


def test_commands_return_at_once_and_close_ends_it() -> None:
    session = Session(settings(), verify=False)
    before = threading.active_count()
    session.start()
    session.play(SAMPLES[0], 1.0)
    session.apply(settings(chunk_ms=320.0))
    assert session.poll() is not None
    assert session.close()
    assert threading.active_count() <= before


def test_age_of_text_counts_from_the_capture() -> None:
    with running(settings()) as watched:
        watched.heard(Feed(speech(0), age_s=100.0))
        ages = [event.lag_ms for event in [*watched.of(Partial), *watched.of(Final)] if event.result.text]
        # The last sample that counts lies within the block that was delivered 100 s after its capture, or before it.
        assert ages and all(100_000 <= age < 130_000 for age in ages)


def test_a_pause_alone_says_nothing() -> None:
    with running(settings()) as watched:
        watched.heard(Feed(quiet(8.0)))
        assert watched.texts() == [] and not watched.session.transcript().text
