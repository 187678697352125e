"""What happens when recognition is slower than speech, on clocks of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from demo_helpers import PATIENCE_S, quiet, recognizer, sample, settings, speech, transcribed

from demo.events import Event, Final, Notice, Partial, Severity
from demo.session.audio_buffer import MB_PER_HOUR, RATE, AudioBuffer
from demo.session.lanes import LaneDecoder
from demo.session.load_shedding import LoadShedding
from demo.session.loader import Loader, _prepared
from demo.session.overload import Overload, OverloadOptions, describe, ladder
from edge.runtime import DecodeOptions


def simulate(
    overload: Overload, speed: Callable[[float, int], float], seconds: float, behind: float = 0.0
) -> list[tuple[float, int, float]]:
    """(time, level, seconds behind) every 0.25 s; ``speed(time, level)`` is the real-time factor."""
    history, now = [], 0.0
    while now < seconds:
        rtf = speed(now, overload.level)
        behind = max(0.0, behind + 0.25 * (1 - 1 / rtf))  # in 0.25 s, 0.25 s of audio came and 0.25 / rtf s went
        now += 0.25
        history.append((now, overload.observe(now, behind), behind))
    return history


def test_a_fast_machine_is_left_alone() -> None:
    history = simulate(Overload(5), lambda now, level: 0.9, 600)
    assert {level for _, level, _ in history} == {0}


def test_one_slow_moment_is_no_overload() -> None:
    # 4 s at two thirds of the speed, as when another program starts; then it catches up.
    history = simulate(Overload(5), lambda now, level: 1.5 if now < 4 else 0.5, 60)
    assert max(behind for *_, behind in history) > 1.0
    assert {level for _, level, _ in history} == {0}


def test_steps_until_it_keeps_up() -> None:
    history = simulate(Overload(5), lambda now, level: (2.0, 1.4, 0.8, 0.6, 0.5)[level], 100)
    levels = [level for _, level, _ in history]
    assert levels == sorted(levels[: levels.index(2)]) + levels[levels.index(2) :]
    assert max(levels) == 2, "no further than needed"
    reached = next(now for now, level, _ in history if level == 2)
    assert reached < 15
    caught_up = next(now for now, level, behind in history if level == 2 and behind < 0.3)
    assert caught_up < 60


def test_staying_behind_is_too_much_as_well() -> None:
    """Neither better nor worse, but five seconds late for ever."""
    assert simulate(Overload(3), lambda now, level: 1.0, 10, behind=5.0)[-1][1] > 0


def test_the_last_level_is_the_last() -> None:
    history = simulate(Overload(3), lambda now, level: 5.0, 100)
    assert history[-1][1] == 2


def test_it_does_not_swing() -> None:
    """Too slow at level 0, fast at level 1: each return to level 0 comes later than the one before."""
    history = simulate(Overload(3), lambda now, level: 1.5 if level == 0 else 0.5, 1200)
    downs = [now for (_, before, _), (now, level, _) in zip(history, history[1:]) if level < before]
    gaps = np.diff(downs)
    assert len(downs) >= 3
    assert gaps[1] > gaps[0] and gaps.max() <= 160 + 30
    assert max(behind for *_, behind in history) < 6


def test_back_to_the_beginning_when_the_machine_is_free_again() -> None:
    history = simulate(Overload(5), lambda now, level: 3.0 if now < 20 else 0.3, 200)
    assert history[-1][1] == 0
    assert max(level for _, level, _ in history) >= 3


def test_hearing_an_utterance_again_is_no_overload() -> None:
    """After a change of settings 20 s of audio may wait at once, and go fast."""
    assert {level for _, level, _ in simulate(Overload(5), lambda now, level: 0.7, 100, behind=20.0)} == {0}


def test_no_step_while_the_last_one_is_not_carried_out() -> None:
    overload = Overload(5, OverloadOptions(patience_s=1.0))
    for tick in range(100):
        overload.observe(tick * 0.25, 2.0 + tick, settled=False)
    assert overload.level == 0


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(160, (160, 320, 640, 1280)), (640, (640, 1280)), (960, (960, 1280)), (1280, (1280,)), (2000, (2000,))],
)
def test_larger_chunks_in_order(chosen: float, expected: tuple[float, ...]) -> None:
    assert ladder(chosen) == expected


def test_what_the_user_reads() -> None:
    assert describe(0, 160, 160, True, 5.0, 1.0) == ""
    text = describe(1, 320, 160, True, 2.4, 1.0)
    assert "2 s behind" in text and "320 ms instead of 160 ms" in text and "No audio is lost" in text
    text = describe(4, 1280, 160, False, 40.0, 3.0)
    assert "only when an utterance ends" in text and "3 MB" in text
    assert pytest.approx(230.4) == MB_PER_HOUR


class _Bench:
    """Lanes, a buffer and the load shedding between them, without threads."""

    def __init__(self, audio: np.ndarray, chunk_ms: float) -> None:
        self.buffer = AudioBuffer()
        self.buffer.append(audio, len(audio), 0.0)
        self.events: list[Event] = []
        self.loader = Loader(verify=False)
        self.posted: list[Callable[[], None]] = []
        prepared = _prepared(0, recognizer(), settings(chunk_ms=chunk_ms, left_chunks=16).decode())
        self.lane = LaneDecoder(prepared, self.buffer)
        self.shedding = LoadShedding(self.events.append, self.loader, self.posted.append)
        self.shedding.reset([self.lane])

    def look(self, now: float) -> None:
        """Let the load shedding look, and wait for what it asked of the loader."""
        before = self.shedding._overload.level
        self.shedding.observe(now, [self.lane], self.buffer.held_mb)
        if self.shedding._overload.level > before:
            end = time.monotonic() + PATIENCE_S
            while not self.posted and time.monotonic() < end:
                time.sleep(0.01)
            self.posted.pop()()

    def step(self) -> None:
        self.events += self.lane.step()
        self.shedding.settle(self.lane)

    def partials(self) -> int:
        return sum(isinstance(event, Partial) and bool(event.result.text) for event in self.events)

    def texts(self) -> list[str]:
        return [event.result.text for event in self.events if isinstance(event, Final)]


def test_lanes_get_larger_chunks_in_the_middle_of_a_word_and_the_text_is_exact() -> None:
    bench = _Bench(np.concatenate([speech(0), quiet(3.0), speech(1, 2)]), 160.0)
    assert [options.chunk_ms for options in bench.lane.prepared.fallbacks] == [320, 640, 1280]
    assert [options.left_chunks for options in bench.lane.prepared.fallbacks] == [8, 4, 2]
    now = 100.0
    # Seconds within "three" of the first recording, and "one", "six" and "four" of the second, which begins at 7.7 s.
    for level, chunk_ms, second in ((1, 320.0, 1.6), (2, 640.0, 8.1), (3, 1280.0, 9.3), (4, 1280.0, 10.5)):
        while bench.lane.position < second * RATE:
            bench.step()
        while bench.shedding._overload.level < level:
            bench.look(now)
            now += 1.0
        assert bench.lane.level == level - 1, "not before it is the lane's turn"
        assert not bench.lane.idle
        position, begin, told = bench.lane.position, bench.lane.utterance, len(bench.events)
        bench.shedding.settle(bench.lane)
        assert bench.lane.level == level, "at once"
        assert bench.lane.chunk_ms == chunk_ms
        assert (bench.lane.position, bench.lane.utterance) == (position, begin), "no cut, and nothing is heard again"
        assert begin < position and len(bench.events) == told
    first, *_, last = [event for event in bench.events if isinstance(event, Notice) and event.text]
    assert first.topic == "overload" and first.severity is Severity.WARNING
    assert "320 ms instead of 160 ms" in first.text and "only when an utterance ends" in last.text
    shown = bench.partials()
    bench.buffer.cut()
    while not bench.lane.idle:
        bench.step()
    assert bench.partials() == shown, "the last level shows finished utterances only"
    alone = [" ".join(r.text for r in recognizer().transcribe(sample(i), RATE)) for i in (0, 1, 2)]
    bench.loader.close(5.0)
    assert " ".join(bench.texts()).split() == " ".join(alone).split()


@pytest.mark.parametrize("levels", [(3, 0), (0, 3, 1, 2, 0, 3)])
def test_a_free_machine_gets_its_chunks_back_in_the_middle_of_a_word(levels: tuple[int, ...]) -> None:
    """Audio comes as it is spoken: what waits for a large chunk makes up several small ones."""
    audio = speech(1, 2)
    bench = _Bench(audio[:0], 160.0)
    lane, most = bench.lane, 0
    for block, at in enumerate(range(0, len(audio), 800)):
        bench.buffer.append(audio[at : at + 800], min(at + 800, len(audio)), 0.0)
        if block % 12 == 11:  # every 600 ms; 1280 ms chunks are seldom complete then
            before = lane.utterance
            lane.change(levels[block // 12 % len(levels)])
            assert lane.utterance == before
        while not lane.idle:
            chunks = lane._stream.stats.chunks
            bench.events += lane.step()
            most = max(most, lane._stream.stats.chunks - chunks)
    bench.buffer.cut()
    while not lane.idle:
        bench.events += lane.step()
    bench.loader.close(5.0)
    assert most > 2
    finals = [event.result for event in bench.events if isinstance(event, Final)]
    assert [result.text for result in finals] == [r.text for r in transcribed(audio, lane.prepared.options)]
    for result in finals:  # when: as said of its own stretch of audio. A clock that is wrong is wrong by a chunk; with
        # other noise (features.dither) a word may begin two frames earlier or later.
        begin, end = (16 * round(ms) for ms in (result.start_ms, result.end_ms))
        (again,) = transcribed(audio[begin:end], DecodeOptions())
        assert [w.start_ms for w in result.words] == pytest.approx(
            [w.start_ms + result.start_ms for w in again.words], abs=80.0
        )


def test_new_settings_begin_anew() -> None:
    bench = _Bench(speech(0), 160.0)
    for now in range(4):
        bench.look(100.0 + now)
    bench.shedding.reset([bench.lane])
    assert isinstance(bench.events[-1], Notice) and bench.events[-1].text == ""
    while not bench.lane.idle:
        bench.step()
    assert bench.lane.chunk_ms == 160
    bench.loader.close(5.0)
