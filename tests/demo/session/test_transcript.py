"""The transcript, its files, and the audio it was made from while that is kept."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from demo_helpers import quiet, sample, settings, speech, transcribed
from subtitle_helpers import parse

from demo.session import subtitles
from demo.session.audio_buffer import RATE, AudioBuffer
from demo.session.transcript import DETAILED, TranscriptLog, Utterance
from edge.runtime import Result, Word


def spoken(text: str, each_ms: float = 300.0, start_ms: float = 1000.0) -> Utterance:
    """Every word takes ``each_ms``."""
    words = tuple(
        Word(word, start_ms + i * each_ms, start_ms + (i + 1) * each_ms - 20, 0.9)
        for i, word in enumerate(text.split())
    )
    return Utterance.of(Result(text, start_ms - 200, start_ms + len(words) * each_ms + 900, True, 0, 0.8, words))


def test_subtitles_of_real_speech_have_the_times_of_its_words() -> None:
    results = transcribed(speech(0, 2), settings().decode())
    utterances = [Utterance.of(result) for result in results]
    cues = parse(subtitles.srt(utterances))
    assert [lines for *_, lines in cues] == [[result.text] for result in results]
    for (number, start, end, _), (index, result) in zip(cues, enumerate(results, start=1), strict=True):
        assert number == index
        assert (start, end) == (round(result.words[0].start_ms), round(result.words[-1].end_ms))
        assert result.start_ms <= start < end <= result.end_ms


def test_long_utterances_are_cut_at_words() -> None:
    text = " ".join(f"word{index}" for index in range(60))
    utterance = spoken(text)
    cues = parse(subtitles.srt([utterance]))
    assert len(cues) > 3
    assert " ".join(line for *_, lines in cues for line in lines) == text
    for _, start, end, lines in cues:
        assert len(lines) <= 2 and all(0 < len(line) <= 42 for line in lines)
        first, last = lines[0].split()[0], lines[-1].split()[-1]
        times = {word.text: word for word in utterance.words}
        assert (start, end) == (round(times[first].start_ms), round(times[last].end_ms))
    assert all(before[2] <= after[1] for before, after in zip(cues, cues[1:]))


@pytest.mark.parametrize("text", ["一" * 100, "x" * 100, "no words known here at all " * 5])
def test_text_without_usable_words_is_cut_too(text: str) -> None:
    words = tuple(Word(c, 10.0 * i, 10.0 * i + 10, 1.0) for i, c in enumerate(text)) if text[0] == "一" else ()
    utterance = Utterance.of(Result(text.strip(), 0.0, 5000.0, True, 0, 1.0, words))
    cues = parse(subtitles.srt([utterance]))
    assert all(len(line) <= 42 for *_, lines in cues for line in lines)
    assert "".join(line for *_, lines in cues for line in lines).replace(" ", "") == text.replace(" ", "")
    assert cues[0][1] == 0 and cues[-1][2] == (1000 if words else 5000)


def test_times_can_count_from_elsewhere() -> None:
    utterance = spoken("one two", start_ms=3_723_004.0)
    assert parse(subtitles.srt([utterance]))[0][1] == 3_723_004
    assert parse(subtitles.srt([utterance], 3_723_000.0))[0][1] == 4
    assert subtitles.txt([utterance]) == "[01:02:03.0] one two\n"
    assert parse(subtitles.srt([utterance], 9e9))[0][1] == 0, "never before the beginning"


def test_files_are_complete_and_agree(tmp_path: Path) -> None:
    utterances = [Utterance.of(result) for result in transcribed(speech(1), settings().decode())]
    paths = subtitles.save(tmp_path / "talk.1", utterances, {"audio": "talk.wav"})
    assert [path.name for path in paths] == ["talk.1.txt", "talk.1.srt", "talk.1.json"]
    assert sorted(tmp_path.iterdir()) == sorted(paths), "nothing temporary is left"
    listed = json.loads(paths[2].read_text(encoding="utf-8"))
    assert listed["audio"] == "talk.wav"
    assert listed["utterances"][0]["text"] == utterances[0].text
    assert [word["text"] for word in listed["utterances"][0]["words"]] == utterances[0].text.split()
    with pytest.raises(OSError):
        subtitles.save(tmp_path / "nowhere" / "talk", utterances)


def test_nothing_said_makes_files_too(tmp_path: Path) -> None:
    txt, srt, listed = subtitles.save(tmp_path / "silence", [])
    assert txt.read_text() == srt.read_text() == ""
    assert json.loads(listed.read_text()) == {"utterances": []}


def test_the_text_is_kept_and_old_words_are_not() -> None:
    log = TranscriptLog()
    for index in range(DETAILED + 10):
        log.add(spoken(f"number {index}"))
    log.show("and then")
    transcript = log.snapshot()
    assert transcript.text.splitlines()[0] == "number 0" and transcript.text.endswith("and then")
    assert [bool(utterance.words) for utterance in transcript.utterances] == [False] * 10 + [True] * DETAILED
    assert transcript.utterances[-1].words == spoken(f"number {DETAILED + 9}").words
    log.add(spoken("the end"))
    assert log.snapshot().partial == "" and transcript.partial == "and then"


def test_a_snapshot_while_it_is_written() -> None:
    log, utterance, stop = TranscriptLog(), spoken("one two three"), threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.add(utterance)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        sizes = [len(log.snapshot().utterances) for _ in range(200)]
    finally:
        stop.set()
        thread.join()
    assert sizes == sorted(sizes)


def test_audio_buffer_keeps_what_is_needed() -> None:
    audio = np.arange(100 * RATE, dtype=np.float32)
    buffer = AudioBuffer()
    most = 0.0
    for end in range(RATE // 4, len(audio) + 1, RATE // 4):
        buffer.append(audio[end - RATE // 4 : end], end, 100.0 + end / RATE)
        buffer.forget(end - 5 * RATE, 0)
        most = max(most, buffer.held_mb)
        start = max(0, end - 5 * RATE)
        assert np.array_equal(buffer.read(start, end - start), audio[start:end])
    assert most <= 4 * 5 * RATE * 4 / 1e6, "memory follows what is needed"
    assert buffer.captured(buffer.end) == pytest.approx(200.0)
    assert buffer.captured(buffer.end - RATE // 8) == pytest.approx(200.0 - 0.125)
    for start, count in ((0, 10), (buffer.end - 5, 6)):
        with pytest.raises(IndexError):
            buffer.read(start, count)


def test_audio_buffer_grows_when_nobody_reads_and_shrinks_again() -> None:
    buffer = AudioBuffer()
    minute = quiet(60.0)
    for index in range(1, 6):
        buffer.append(minute, index * len(minute), 0.0)
    assert buffer.held_mb >= 5 * minute.nbytes / 1e6
    assert np.array_equal(buffer.read(4 * len(minute), len(minute)), minute)
    buffer.forget(buffer.end - RATE, 0)
    assert buffer.held_mb < 1.0
    assert np.array_equal(buffer.read(buffer.end - RATE, RATE), minute[-RATE:])


def test_cuts_are_numbered_and_passed_once() -> None:
    buffer = AudioBuffer()
    assert buffer.cut_at(0) is None
    assert (buffer.cut(), buffer.cut()) == (0, 0)
    buffer.append(sample(0), len(sample(0)), time.monotonic())
    assert buffer.cut() == 1 and buffer.cut_at(1) == buffer.end
    buffer.forget(buffer.end, 2)
    assert buffer.cut() == 1, "the last one is known even if it was passed"
    buffer.append(sample(0), 2 * len(sample(0)), time.monotonic())
    assert buffer.cut() == 2 and buffer.cut_at(2) == buffer.end and buffer.cuts == 3
