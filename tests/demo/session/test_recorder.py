"""Recordings: the audio bit for bit, the transcript beside it, and what is left after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from demo_helpers import INT8, Feed, Samples, Watched, quiet, running, sample, settings, speech, transcribed
from subtitle_helpers import parse

from demo.events import Ended, Final, Notice, Severity
from demo.session.recorder import Take, WavWriter


def saved(watched: Watched) -> None:
    watched.until(lambda event: isinstance(event, Notice) and event.topic == "recording" and "saved" in event.text)


def only(folder: Path, extension: str) -> Path:
    (path,) = folder.glob(f"*{extension}")
    return path


def bits(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


@pytest.mark.parametrize("rate", [8000, 48000])
def test_wav_has_the_bits_it_was_given(tmp_path: Path, rate: int) -> None:
    written = np.random.default_rng(0).integers(-32768, 32768, 10_000).astype(np.int16)
    wav = WavWriter(tmp_path / "a.wav", rate)
    for part in np.array_split(written, 7):
        wav.write(part.astype(np.float32) / 32768)
    wav.close()
    wav.close()
    assert np.array_equal(bits(tmp_path / "a.wav"), written)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype, info.format) == (rate, 1, "PCM_16", "WAV")
    assert (tmp_path / "a.wav").stat().st_size == 44 + 2 * len(written)


def test_wav_clips_what_does_not_fit(tmp_path: Path) -> None:
    wav = WavWriter(tmp_path / "a.wav", 16000)
    wav.write(np.array([2.0, 1.0, -1.0, -3.0, 0.0], np.float32))
    wav.close()
    assert bits(tmp_path / "a.wav").tolist() == [32767, 32767, -32768, -32768, 0]


def test_wav_can_be_played_after_a_crash(tmp_path: Path) -> None:
    written = (sample(0) * 32768).astype(np.int16)
    wav = WavWriter(tmp_path / "a.wav", 16000)
    for start in range(0, len(written), 800):
        wav.write(written[start : start + 800].astype(np.float32) / 32768)
    found = bits(tmp_path / "a.wav")  # nobody closed it
    assert len(written) - len(found) <= 16000
    assert np.array_equal(found, written[: len(found)])


def test_wav_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("mine")
    with pytest.raises(FileExistsError):
        WavWriter(tmp_path / "a.wav", 16000)


def test_takes_of_one_second_get_different_names(tmp_path: Path) -> None:
    takes = [Take.begin(tmp_path / "new", "feed", 16000, 0.0) for _ in range(3)]
    for take in takes:
        take.wav.write(quiet(0.1))
        take.save([])
    assert len(list((tmp_path / "new").glob("*.wav"))) == 3
    assert len(list((tmp_path / "new").iterdir())) == 12


def test_a_recording_of_a_whole_source(tmp_path: Path) -> None:
    audio = speech(0, 1)
    with running(settings(compare=INT8)) as watched:
        watched.session.record(tmp_path)
        watched.heard(Feed(audio))
        results, others = watched.results(0), watched.results(1)
        assert [event.text for event in watched.notices("recording")][-1].startswith("saved ")
    assert np.array_equal(bits(only(tmp_path, ".wav")), np.rint(audio * 32768).astype(np.int16))
    assert len(list(tmp_path.iterdir())) == 4
    cues = parse(only(tmp_path, ".srt").read_text(encoding="utf-8"))
    assert [lines for *_, lines in cues] == [[result.text] for result in results]
    assert [start for _, start, *_ in cues] == [round(result.words[0].start_ms) for result in results]
    listed = json.loads(only(tmp_path, ".json").read_text(encoding="utf-8"))
    assert listed["seconds"] == pytest.approx(len(audio) / 16000, abs=1e-3)
    assert [u["text"] for u in listed["utterances"]] == [result.text for result in results]
    assert [u["text"] for u in listed["others"]["1"]] == [result.text for result in others]
    assert [lane["scheme"] for lane in listed["lanes"]] == ["fp32", "static"]


def test_a_recording_of_the_middle(tmp_path: Path) -> None:
    """Begins and ends while somebody speaks: what is in the WAV is in the transcript, on the WAV's clock."""
    audio = np.concatenate([sample(0), quiet(0.3), sample(1), sample(2)])
    begin, end = (len(sample(0)) + 4000) / 16000, (len(sample(0)) + 4800 + len(sample(1)) + 800) / 16000
    with running(settings()) as watched:
        feed = Feed(audio, limit=begin)
        watched.hear(feed)
        worker = watched.session._worker
        watched.until(lambda event: worker._lanes[0].position >= round(begin * 16000))
        watched.session.record(tmp_path)
        watched.settled()
        feed.allow(end)
        watched.until(lambda event: worker._lanes[0].position >= round(end * 16000))
        watched.session.record(None)
        saved(watched)
        feed.allow(None)
        watched.kind(Ended)
        assert len(watched.of(Final)) == 3
    recorded = audio[round(begin * 16000) : round(end * 16000)]
    wav = only(tmp_path, ".wav")
    assert np.array_equal(bits(wav), np.rint(recorded * 32768).astype(np.int16))
    alone = transcribed(recorded, settings().decode())
    listed = json.loads(only(tmp_path, ".json").read_text(encoding="utf-8"))["utterances"]
    assert [u["text"] for u in listed] == [result.text for result in alone]
    expected = [word.start_ms for result in alone for word in result.words]
    assert [w["start_ms"] for u in listed for w in u["words"]] == pytest.approx(expected, abs=0.11)


def test_closing_the_session_saves(tmp_path: Path) -> None:
    with running(settings()) as watched:
        watched.session.record(tmp_path)
        watched.hear(Feed(speech(0), limit=1.5))
        worker = watched.session._worker
        # All of it: on a busy machine the first partial text may end in the middle of a word.
        watched.until(lambda event: worker._lanes[0].position >= 24000)
    assert only(tmp_path, ".txt").read_text(encoding="utf-8").rstrip().endswith(("seven", "one"))
    assert len(bits(only(tmp_path, ".wav"))) == 24000


def test_each_source_is_a_recording_of_its_own(tmp_path: Path) -> None:
    halves: list[Samples] = [sample(0), sample(1)[::2]]
    with running(settings()) as watched:
        watched.session.record(tmp_path)
        watched.heard(Feed(halves[0]))
        watched.heard(Feed(halves[1], rate=8000))
    found = {soundfile.info(path).samplerate: bits(path) for path in tmp_path.glob("*.wav")}
    assert sorted(found) == [8000, 16000]
    assert np.array_equal(found[8000], np.rint(halves[1] * 32768).astype(np.int16))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with running(settings()) as watched:
        watched.session.record(tmp_path / "file")
        watched.heard(Feed(sample(0)))
        notice = watched.notices("recording")[-1]
        assert notice.severity is Severity.ERROR and str(tmp_path / "file") in notice.text
        assert watched.texts(), "recognition goes on"


def test_nothing_heard_leaves_nothing(tmp_path: Path) -> None:
    with running(settings()) as watched:
        watched.session.record(tmp_path)
        watched.hear(Feed(sample(0), limit=0.0))
        watched.session.record(None)
        watched.session.stop()
    assert list(tmp_path.iterdir()) == []
