"""Audio files as recorders, pipes and people leave them. What is expected is the audio that was written."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.runtime import AudioError, Clip, DamagedAudio, Recognizer, audio_seconds, load_audio, read_blocks
from edge.system.assets import default_bundle, sample_files

RATE, SECONDS = 16000, 3.0
WAVE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(RATE * SECONDS)) / RATE)).astype(np.float32)
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, len(WAVE)).astype(np.float32)
KINDS = {  # ending -> (format, subtype, largest error against what was written; None: lossy)
    "wav": ("WAV", "PCM_16", 1 / 32768),
    "float.wav": ("WAV", "FLOAT", 0.0),
    "ulaw.wav": ("WAV", "ULAW", None),
    "gsm.wav": ("WAV", "GSM610", None),
    "ima.wav": ("WAV", "IMA_ADPCM", None),
    "flac": ("FLAC", "PCM_16", 1 / 32768),
    "aiff": ("AIFF", "PCM_16", 1 / 32768),
    "au": ("AU", "PCM_16", 1 / 32768),
    "ogg": ("OGG", "VORBIS", None),
    "opus": ("OGG", "OPUS", None),
    "rf64": ("RF64", "PCM_16", 1 / 32768),
    "caf": ("CAF", "PCM_16", 1 / 32768),
    "mp3": ("MP3", "MPEG_LAYER_III", None),
}


def written(folder: Path, kind: str, wave: Any = WAVE) -> bytes:
    path = folder / f"whole.{kind}"
    name, subtype, _ = KINDS[kind]
    soundfile.write(path, wave, RATE, format=name, subtype=subtype)
    return path.read_bytes()


def kept(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def heard(path: Path | Clip) -> tuple[Any, list[str]]:
    """What comes out before the end or the damage, and what was said."""
    said: list[str] = []
    blocks = []
    try:
        for block, rate in read_blocks(path, 0.1, said.append):
            assert rate == RATE
            blocks.append(block)
    except DamagedAudio as error:
        said.append(str(error))
    return np.concatenate(blocks), said


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read_whole_and_said_nothing_of(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, kind)
    samples, said = heard(kept(tmp_path / f"a.{kind}", data))
    tolerance = KINDS[kind][2]
    assert not said and abs(len(samples) - len(WAVE)) <= (0 if tolerance is not None else 1200)
    if tolerance is not None:
        assert np.abs(samples - WAVE).max() <= tolerance
    assert audio_seconds(tmp_path / f"a.{kind}") == len(samples) / RATE
    assert np.array_equal(load_audio(tmp_path / f"a.{kind}")[0], samples)


@pytest.mark.parametrize("size", [0, 1000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [None, 0, 36, 4088])
def test_a_recorder_that_died_before_it_wrote_the_sizes(tmp_path: Path, size: int, riff: int | None) -> None:
    data = bytearray(written(tmp_path, "wav"))
    data[40:44] = struct.pack("<I", size)
    if riff is not None:
        data[4:8] = struct.pack("<I", riff)
    samples, said = heard(kept(tmp_path / "a.wav", bytes(data)))
    assert len(samples) == len(WAVE) and not said
    assert audio_seconds(tmp_path / "a.wav") == SECONDS


def test_chunks_after_the_samples_are_no_samples(tmp_path: Path) -> None:
    data = written(tmp_path, "wav")
    tags = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"
    for tail in (tags, b"id3 " + struct.pack("<I", 6) + b"abcdef", b"TAG" + bytes(125), b"\0" * 6):
        samples, _ = heard(kept(tmp_path / "a.wav", data + tail))
        assert len(samples) == len(WAVE), tail
    empty = data[:40] + struct.pack("<I", 0) + tags  # nothing was recorded, and that is said
    with pytest.raises(AudioError, match="a header and no samples"):
        load_audio(kept(tmp_path / "b.wav", empty))


def flac_of(data: bytes, total: int) -> bytes:
    """``data`` with another number of samples in STREAMINFO; 0 is what a pipe leaves."""
    changed, at = bytearray(data), 8 + 13
    changed[at] = (changed[at] & 0xF0) | (total >> 32)
    changed[at + 1 : at + 5] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(changed)


@pytest.mark.parametrize("total", [0, 1000])
def test_flac_of_unknown_or_wrong_length(tmp_path: Path, total: int) -> None:
    path = kept(tmp_path / "a.flac", flac_of(written(tmp_path, "flac", NOISE), total))
    samples, said = heard(path)
    assert np.abs(samples - NOISE).max() <= 1 / 32768 and not said
    assert audio_seconds(path) == SECONDS


SHORT = {
    "au": lambda data: data[:8] + struct.pack(">I", 1000) + data[12:],
    "mp3": lambda data: _xing(data, 10),
    "aiff": lambda data: _ssnd(data, 2008),
    "rf64": lambda data: data[:28] + struct.pack("<Q", 0) + data[36:],
    "caf": lambda data: _caf(data, 1000),
}


def _caf(data: bytes, size: int) -> bytes:
    at = data.find(b"data")
    return data[: at + 4] + struct.pack(">q", size) + data[at + 12 :]


def _xing(data: bytes, frames: int) -> bytes:
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    return data[: at + 8] + struct.pack(">I", frames) + data[at + 12 :]


def _ssnd(data: bytes, size: int) -> bytes:
    at = data.find(b"SSND")
    return data[: at + 4] + struct.pack(">I", size) + data[at + 8 :]


@pytest.mark.parametrize("kind", SHORT)
def test_a_header_that_announces_too_little(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, kind)
    want, _ = heard(kept(tmp_path / f"whole.{kind}", data))
    have, said = heard(kept(tmp_path / f"a.{kind}", SHORT[kind](data)))
    assert not said and abs(len(have) - len(want)) <= 1200
    assert np.abs(have[: len(WAVE) // 2] - want[: len(WAVE) // 2]).max() <= 1e-6


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("rf64", "caf")])
def test_joined_files_follow_each_other(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, kind)
    once, _ = heard(kept(tmp_path / f"once.{kind}", data))
    twice, said = heard(kept(tmp_path / f"a.{kind}", data + data))
    assert not said and abs(len(twice) - 2 * len(once)) <= (0 if KINDS[kind][2] is not None else 2400)
    assert np.abs(twice[: len(once) - 1200] - once[:-1200]).max() <= 1e-6
    assert np.sqrt(np.mean(np.square(twice[len(once) + 2400 :]))) > 0.15  # it sounds to the end


@pytest.mark.parametrize("kind", ["flac", "mp3", "wav", "aiff", "ulaw.wav", "gsm.wav", "ima.wav", "ogg", "opus", "caf"])
def test_a_cut_file_is_heard_up_to_the_cut_and_said(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, kind, NOISE)
    whole, _ = heard(kept(tmp_path / f"whole.{kind}", data))
    samples, said = heard(kept(tmp_path / f"a.{kind}", data[: int(len(data) * 0.7)]))
    assert 0.6 * len(WAVE) < len(samples) < 0.75 * len(WAVE)
    assert np.abs(samples[:-2400] - whole[: len(samples) - 2400]).max() <= 1e-6
    assert len(said) == 1 and ("ends after" in said[0] or "damaged after" in said[0]), said
    assert audio_seconds(tmp_path / f"a.{kind}") == len(samples) / RATE


def test_streams_of_two_rates_are_not_mixed_up(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", WAVE, 8000)
    path = kept(tmp_path / "a.wav", written(tmp_path, "wav") + (tmp_path / "b.wav").read_bytes())
    samples, said = heard(path)
    assert len(samples) == len(WAVE) and "stream 2 has 8000 Hz and not 16000 Hz" in said[0]


def test_text_of_a_cut_flac_is_kept_and_printed(tmp_path: Path) -> None:
    """By the recognizer and by the command, whose exit code says that something was wrong."""
    sample = sample_files()[0]
    samples, rate = soundfile.read(sample, dtype="float32")
    soundfile.write(tmp_path / "long.flac", np.concatenate([samples, samples]), rate)
    data = (tmp_path / "long.flac").read_bytes()
    path = kept(tmp_path / "cut.flac", data[: int(len(data) * 0.7)])
    recognizer = Recognizer.load(default_bundle())
    whole = [r.text for r in recognizer.transcribe(sample)]
    texts: list[str] = []
    with pytest.raises(DamagedAudio, match=r"damaged after \d"):
        for result in recognizer.transcribe(path):
            texts.append(result.text)
    assert " ".join(texts).startswith(" ".join(whole).split(" ")[0]) and len(" ".join(texts)) >= len(" ".join(whole))
    command = [sys.executable, "-m", "u2edge", "transcribe", str(path), "--no-partials"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "damaged after" in done.stderr
    assert all(text in done.stdout for text in texts if text)


def test_decoders_do_not_write_to_the_terminal(tmp_path: Path) -> None:
    """Sound that starts in the middle of a frame makes libmpg123 complain, dozens of times."""
    data = _xing(written(tmp_path, "mp3", NOISE), 10)
    path = kept(tmp_path / "a.mp3", data + bytes(300) + data[3000:])
    read = f"import sys, soundfile; f = soundfile.SoundFile({str(path)!r}); f.read(-1)"
    loud = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True).stderr
    code = f"import os; from edge.runtime import load_audio\nload_audio({str(path)!r}); os.write(2, b'mine')"
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert quiet.returncode == 0 and quiet.stderr == "mine", quiet.stderr
    assert loud  # the complaint is there when nobody takes it


FFMPEG = """#!{python}
import struct, sys, wave
assert "-nostdin" in sys.argv and sys.argv[sys.argv.index("-i") + 1] == "file:{path}", sys.argv
if "broken" in sys.argv[sys.argv.index("-i") + 1]:
    sys.exit("moov atom not found")
samples = struct.pack("<16000f", *([0.25] * 8000 + [-0.25] * 8000))
header = b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
sys.stdout.buffer.write(header + b"LIST" + struct.pack("<I", 4) + b"INFO" + b"data" + struct.pack("<I", 0xFFFFFFFF))
sys.stdout.buffer.write(samples)
"""


@pytest.mark.parametrize("name", ["talk.m4a", "broken.m4a"])
@pytest.mark.skipif(os.name != "posix", reason="the stand-in for ffmpeg is a script with a #! line")
def test_what_libsndfile_cannot_read_goes_through_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A program of that name stands in: what is tested is how it is called and how its output is read."""
    path = kept(tmp_path / name, b"\0\0\0\x20ftypM4A " + bytes(1000))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(AudioError, match="with ffmpeg on PATH"):
        load_audio(path)
    tool = tmp_path / "bin" / "ffmpeg"
    tool.parent.mkdir()
    tool.write_text(FFMPEG.format(python=sys.executable, path=path))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    if name.startswith("broken"):
        with pytest.raises(AudioError, match="ffmpeg says: moov atom not found"):
            load_audio(path)
        return
    samples, rate = load_audio(path)
    assert rate == RATE and samples.shape == (16000, 1) and set(np.unique(samples)) == {0.25, np.float32(-0.25)}
    assert audio_seconds(path) == 1.0


def test_parts_of_a_recording(tmp_path: Path) -> None:
    stereo = np.stack([WAVE, NOISE], axis=1)
    for kind in ("wav", "flac"):
        path = tmp_path / f"a.{kind}"
        soundfile.write(path, stereo, RATE)
        whole, _ = load_audio(path)
        for start, seconds in ((0.5, 1.25), (0.0, 1.0), (2.0, None), (2.9, 5.0)):
            found, rate = load_audio(Clip(path, start, seconds))
            last = len(whole) if seconds is None else round((start + seconds) * RATE)
            assert np.array_equal(found, whole[round(start * rate) : last])
        assert np.array_equal(load_audio(Clip(path, 1.0, 1.0, channel=2))[0], whole[RATE : 2 * RATE, 1])
        with pytest.raises(AudioError, match="expected a channel of 1 to 2, found 3"):
            load_audio(Clip(path, channel=3))
        with pytest.raises(AudioError, match="none in this part"):
            load_audio(Clip(path, 100.0))
