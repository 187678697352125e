from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from demo.audio import FileSource, LevelWatch
from demo.audio.capture import SampleClock
from demo.audio.devices import Input, choose, resolve
from demo.audio.level import clips, peak_db, rms_db
from demo.audio.source import MicrophoneError, Source
from demo.events import Block, Notice, Severity
from edge.runtime import AudioError

RATE = 16000


def sine(amplitude: float, seconds: float, hertz: float = 440.0, rate: int = RATE) -> NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def blocks(samples: NDArray[np.float32], rate: int = RATE) -> list[Block]:
    size = rate // 50
    return [Block(samples[at : at + size], rate, at, at / rate) for at in range(0, len(samples), size)]


def drain(source: Source, timeout_s: float = 1.0) -> tuple[list[Block], list[Notice]]:
    sound: list[Block] = []
    told: list[Notice] = []
    while not source.ended:
        item = source.read(timeout_s)
        if isinstance(item, Notice):
            told.append(item)
        elif item is not None:
            sound.append(item)
    return sound, told


# Level


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.01, 1e-4])
def test_level_of_a_sine(amplitude: float) -> None:
    """Root mean square of a sine is amplitude / sqrt(2): 3.01 dB below its peak."""
    wave = sine(amplitude, 1.0)  # whole periods
    assert rms_db(wave) == pytest.approx(20 * np.log10(amplitude / np.sqrt(2)), abs=0.01)
    assert peak_db(wave) == pytest.approx(20 * np.log10(amplitude), abs=0.02)


def test_level_of_nothing() -> None:
    for nothing in (np.zeros(100, np.float32), np.zeros(0, np.float32)):
        assert rms_db(nothing) == peak_db(nothing) == -120.0
        assert not clips(nothing)


def test_clipping_is_a_flat_top() -> None:
    assert not clips(sine(1.0, 1.0))  # reaches full scale and is whole
    assert clips(np.clip(sine(1.5, 1.0), -1, 1))
    assert clips(np.clip(-sine(1.5, 1.0), -1, 1))
    assert clips(np.array([0, 1, 1, 1], np.float32))
    assert not clips(np.array([1, 1, 0, 1, 1, 0], np.float32))


def notices(watch: LevelWatch, wave: NDArray[np.float32]) -> list[str]:
    found = [notice for block in blocks(wave) if (notice := watch.add(block)) is not None]
    assert all(notice.topic == "level" for notice in found)
    return [notice.text for notice in found]


def talk(loud: float, seconds: float) -> NDArray[np.float32]:
    """Half a second of sound in each second, the other half 30 dB below."""
    wave = sine(1.0, seconds)
    speaking = np.arange(len(wave)) % RATE < RATE // 2
    return wave * np.where(speaking, loud, loud / 30).astype(np.float32)


def test_quiet_speech_is_told_until_it_is_louder() -> None:
    watch = LevelWatch()
    (quiet,) = notices(watch, talk(10 ** (-50 / 20), 10))  # RMS -53 dBFS
    assert "quiet" in quiet and "-53 dBFS" in quiet
    assert notices(watch, talk(10 ** (-39 / 20), 12)) == []  # RMS -42: between the thresholds
    assert notices(watch, talk(10 ** (-20 / 20), 5)) == [""]
    assert notices(watch, talk(10 ** (-39 / 20), 20)) == []  # and from above nothing is said either


def test_a_quiet_room_is_no_quiet_speech() -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (-60 / 20), 20 * RATE).astype(np.float32)
    assert notices(LevelWatch(), noise) == []


def test_clipping_is_told_and_forgotten() -> None:
    watch = LevelWatch()
    assert notices(watch, talk(0.5, 5)) == []
    knock = np.zeros(RATE * 4, np.float32)
    knock[RATE : RATE + 5] = 1.0
    assert notices(watch, knock + talk(0.1, 4)) == []
    (text,) = notices(watch, np.clip(talk(2.0, 3), -1, 1))
    assert "clips" in text
    assert notices(watch, talk(0.5, 5)) == [""]


def test_a_muted_microphone() -> None:
    watch = LevelWatch()
    (text,) = notices(watch, np.zeros(RATE * 10, np.float32))
    assert "muted" in text
    assert notices(watch, talk(0.1, 3)) == [""]
    (text,) = notices(LevelWatch(live=False), np.zeros(RATE * 10, np.float32))
    assert "microphone" not in text


def test_watch_shows_the_last_block() -> None:
    watch = LevelWatch()
    for amplitude in (0.5, 0.05):
        watch.add(Block(sine(amplitude, 1.0), RATE, 0, 0.0))
        assert watch.peak_db == pytest.approx(20 * np.log10(amplitude), abs=0.02)


def test_ordinary_recordings_are_fine(shared: Path) -> None:
    """Human recordings of three collections; who is told to speak up there was recorded at -45 dBFS or less."""
    complaints = []
    for path in sorted((shared / "speech").glob("*/**/*.flac"))[::97][:20]:
        samples, rate = soundfile.read(path, dtype="float32")
        watch = LevelWatch(live=False)
        told = [notice for block in blocks(samples, rate) if (notice := watch.add(block))]
        if told and rms_db(samples) > -40 and np.abs(samples).max() < 0.99:
            complaints.append((path.name, told[0].text, rms_db(samples)))
    assert complaints == []


# Files


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    path = tmp_path / "two.flac"
    soundfile.write(path, np.stack([sine(0.5, 0.98, 440, 44100), sine(0.2, 0.98, 880, 44100)], axis=1), 44100)
    return path


def test_file_content(stereo: Path) -> None:
    source = FileSource(stereo, pace=None)
    assert (source.name, source.rate, source.live, source.ended) == ("two.flac", 44100, False, False)
    assert source.seconds == pytest.approx(0.98)
    sound, told = drain(source)
    assert not told and all(block.rate == 44100 and block.gap_ms == 0 for block in sound)
    assert [len(block.samples) for block in sound[:-1]] == [2205] * (len(sound) - 1)
    assert [block.first for block in sound] == list(range(0, 43218, 2205))
    expected = soundfile.read(stereo, dtype="float32")[0].mean(axis=1)
    np.testing.assert_allclose(np.concatenate([block.samples for block in sound]), expected, atol=1e-7)
    assert source.ended and source.read(0.1) is None


def test_file_comes_at_the_pace_of_real_time(stereo: Path) -> None:
    source = FileSource(stereo, pace=4.0)
    began = time.monotonic()
    assert source.read(0.0) is None  # not due yet
    sound, _ = drain(source, 0.01)
    took = time.monotonic() - began
    assert took >= 0.98 / 4
    ends = np.cumsum([len(block.samples) for block in sound]) / 44100 / 4
    captured = np.array([block.captured for block in sound])
    np.testing.assert_allclose(captured - captured[0], ends - ends[0], atol=1e-6)
    assert captured[-1] <= time.monotonic()


def test_late_reader_of_a_file_misses_nothing(stereo: Path) -> None:
    source = FileSource(stereo)
    source.read(0.1)
    time.sleep(0.4)
    before = time.monotonic()
    late = [source.read(0.0) for _ in range(7)]
    assert all(isinstance(block, Block) and block.captured < before for block in late)


def test_file_that_is_none(tmp_path: Path, stereo: Path) -> None:
    with pytest.raises(AudioError, match="no such audio file"):
        FileSource(tmp_path / "x.wav")
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match="expected WAV"):
        FileSource(tmp_path / "text.wav")
    with pytest.raises(ValueError, match="pace"):
        FileSource(stereo, pace=0)


def test_damage_in_the_middle_is_told_and_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.wav"
    wave = sine(0.5, 1.0)
    wave[9000] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    sound, told = drain(FileSource(path, pace=None))
    assert sum(len(block.samples) for block in sound) == 8800  # the eleven whole blocks before
    assert [(notice.topic, notice.severity) for notice in told] == [("file", Severity.ERROR)]
    assert "finite" in told[0].text and str(path.name) in told[0].text


def test_closed_file_ends(stereo: Path) -> None:
    source = FileSource(stereo)
    source.close()
    source.close()
    assert source.ended and source.read(0.0) is None


# Devices


def listed(*names: str) -> list[Input]:
    return [Input(index, name, 48000, 2) for index, name in enumerate(names)]


def test_the_default_comes_first_and_converters_never() -> None:
    found = listed("Desk (hw:0,0)", "lavrate", "Headset (hw:1,0)", "pulse", "default")
    assert [device.index for device in choose(found, 4, None)] == [4, 0, 2, 3]
    assert [device.index for device in choose(found, None, None)] == [0, 2, 3, 4]
    assert choose([], None, None) == []


def test_a_chosen_device_is_not_replaced_by_another() -> None:
    found = listed("USB mic (hw:1,0)", "USB mic (hw:2,0)", "Desk")
    assert choose(found, 2, "USB mic (hw:2,0)")[0].index == 1
    assert choose(found, 2, "USB mic (hw:3,0)")[0].index == 0  # plugged in again, on another card
    assert [device.name for device in choose(found, 2, "desk")] == ["Desk"]
    assert choose(found, 2, "headset") == []


def test_what_users_type() -> None:
    found = listed("USB mic (hw:1,0)", "Desk")
    assert resolve(found, None) is None
    assert resolve(found, "1") == "Desk"
    assert resolve(found, "usb") == "USB mic (hw:1,0)"
    with pytest.raises(MicrophoneError, match=r"'headset'; microphones found: 0 USB mic \(hw:1,0\), 1 Desk"):
        resolve(found, "headset")
    with pytest.raises(MicrophoneError, match="microphones found: none"):
        resolve([], "7")


# The clock of samples


def arrivals(clock: SampleClock, begin: float, count: int, jitter: Any) -> list[float]:
    """Blocks of 20 ms, each at the earliest when its last sample exists."""
    return [clock.arrived(320, begin + 0.02 * (i + 1) + float(jitter[i])) for i in range(count)]


def test_captured_is_the_time_of_the_sample_not_of_the_callback() -> None:
    jitter = np.random.default_rng(0).uniform(0, 0.05, 500)
    jitter[0] = 0.0
    captured = arrivals(SampleClock(RATE), 100.0, 500, jitter)
    np.testing.assert_allclose(captured, 100.0 + 0.02 * np.arange(1, 501), atol=1e-9)


def test_a_backlog_is_lateness() -> None:
    clock = SampleClock(RATE)
    arrivals(clock, 100.0, 100, np.zeros(100))
    clock.arrived(320, 102.02 + 2.5)
    assert clock.late_s == pytest.approx(2.5)


def test_lost_sound_is_measured_and_then_no_lateness() -> None:
    clock = SampleClock(RATE)
    arrivals(clock, 100.0, 100, np.zeros(100))
    assert clock.lost(320, 102.02 + 0.7) == pytest.approx(0.7)
    assert clock.arrived(320, 102.02 + 0.7) == pytest.approx(102.72)
    assert clock.late_s == pytest.approx(0.0, abs=1e-9)


def test_a_slow_crystal_is_no_backlog() -> None:
    """A sound card of 15998.4 Hz (100 ppm) is 0.36 s behind after an hour."""
    clock = SampleClock(RATE)
    for i in range(1, 60 * 60 * 50, 25):
        clock.arrived(320 * 25 if i > 1 else 320, 0.02 * i * (1 + 1e-4))
    assert clock.late_s < 0.02
