from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge.runtime import AudioError, load_audio, read_blocks
from edge.runtime.audio import Resampler, check_sample_rate, to_mono_float


def sine(hertz: float, rate: int, seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_16")])
def test_reads_what_was_written(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = tmp_path / f"x.{suffix}"
    wave = sine(440, 16000, 0.5)
    soundfile.write(path, wave, 16000, subtype=subtype)
    samples, rate = load_audio(path)
    assert rate == 16000 and samples.dtype == np.float32 and samples.shape == wave.shape
    assert np.abs(samples - wave).max() <= (1 / 32768 if subtype == "PCM_16" else 0)


def test_stereo_file_and_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    wave = np.stack([sine(440, 44100, 1.3), sine(880, 44100, 1.3)], axis=1)
    soundfile.write(path, wave, 44100, subtype="FLOAT")
    samples, rate = load_audio(path)
    assert samples.shape == wave.shape and rate == 44100
    blocks = list(read_blocks(path, seconds=0.5))
    assert [len(block) for block, _ in blocks] == [22050, 22050, 13230]
    assert np.array_equal(np.concatenate([block for block, _ in blocks]), wave)


def wav_header(rate: int, data: bytes) -> bytes:
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        rate * 2,
        2,
        16,
        b"data",
        len(data),
    )
    return header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such audio file"),
        (b"", "found an empty file"),
        (b"This is not audio, but a letter.\n" * 20, "expected WAV, FLAC.*ffmpeg"),
        (wav_header(16000, b""), "no samples"),
        (wav_header(1, b"\0\0" * 10), "found 1 Hz"),
        (wav_header(4_000_000_000 // 2, b"\0\0" * 10), "found 2000000000 Hz"),
    ],
)
def test_unusable_files_get_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    for read in (load_audio, lambda p: list(read_blocks(p))):
        with pytest.raises(AudioError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_directory_headerless_and_surround_files(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="found a directory"):
        load_audio(tmp_path)
    raw = tmp_path / "x.raw"
    raw.write_bytes(b"\0\0" * 100)
    with pytest.raises(AudioError, match="expected WAV"):
        load_audio(raw)
    soundfile.write(tmp_path / "6.wav", np.zeros((100, 6), np.float32), 16000)
    assert load_audio(tmp_path / "6.wav")[0].shape == (100, 6)


def test_damaged_flac_is_an_audio_error(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 160000).astype(np.float32), 16000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"x\.flac"):
        load_audio(path)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 2)])
def test_every_dtype_and_shape_gives_the_same_samples(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.array([0, 1, -1, 0.5, -0.5, 0.25, 0.125, -0.75])
    full = {"int16": 2.0**15, "int32": 2.0**31}.get(dtype, 1.0)
    scaled = np.clip(values * full, -full, full - 1) if full > 1 else values
    samples = scaled.astype(dtype)
    if len(shape) == 2:
        samples = np.repeat(samples[:, None], shape[1], axis=1)
    mono = to_mono_float(samples)
    assert mono.dtype == np.float32 and mono.shape == (8,) and mono.flags.c_contiguous
    assert np.abs(mono).max() <= 1.0
    assert np.abs(mono - values).max() <= 2.0 / full if full > 1 else np.array_equal(mono, values)


def test_stereo_is_averaged_and_input_is_not_changed() -> None:
    stereo = np.array([[16384, 0], [-32768, -32768], [100, -100]], np.int16)
    before = stereo.copy()
    assert to_mono_float(stereo).tolist() == [0.25, -1.0, 0.0]
    assert np.array_equal(stereo, before)


def test_empty_input_is_fine() -> None:
    inputs: list[Any] = [[], np.zeros(0, np.int16), np.zeros((0, 2), np.float32)]
    for empty in inputs:
        assert to_mono_float(empty).shape == (0,)


def test_samples_that_are_not_finite_are_counted_and_placed() -> None:
    samples = np.zeros((100, 2), np.float32)
    samples[7, 1], samples[9] = np.inf, np.nan
    with pytest.raises(AudioError, match=r"found 3 of 200 that are not \(first: inf at frame 7\)"):
        to_mono_float(samples)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 100), np.float32), r"\(2, 100\); put the channels last"),
        (np.zeros((100, 65), np.float32), r"\(100, 65\); put the channels last"),
        (np.zeros((1, 2, 3), np.float32), r"\(1, 2, 3\)"),
        (np.float32(0.5), r"\(\)"),
        (np.zeros(4, np.uint8), "found uint8"),
        (np.zeros(4, np.complex64), "found complex64"),
        (np.zeros(4, bool), "found bool"),
        (["a"], "found str"),
        (None, "found object"),
        (np.array([0.0, 20000.0], np.float32), "peak of 20000; divide 16-bit values by 32768"),
    ],
)
def test_other_input_is_refused(samples: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        to_mono_float(samples)


@pytest.mark.parametrize("rate", [0, -16000, 1e9, float("nan"), float("inf"), "16000", None, True, 16000.5])
def test_absurd_sample_rates(rate: Any) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        check_sample_rate(rate)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_resampled_sine_is_the_sine_and_blocks_do_not_matter(rate: int) -> None:
    wave = sine(440, rate, 2.0)
    rng = np.random.default_rng(1)
    whole, parts = Resampler(rate, 16000), Resampler(rate, 16000)
    expected = np.concatenate([whole.accept(wave), whole.finish()])
    got, at = [], 0
    while at < len(wave):
        size = int(rng.integers(0, 3000))
        got.append(parts.accept(wave[at : at + size]))
        at += size
    got.append(parts.finish())
    assert np.array_equal(np.concatenate(got), expected)
    ideal = sine(440, 16000, 2.0)
    assert len(expected) == len(ideal)
    # The ends ring; in between HQ is a 20-bit resampler: 1e-5 of full scale is ten times its error.
    assert np.abs(expected - ideal)[2000:-2000].max() < 1e-5


def test_names_that_are_not_utf8_and_names_that_are_too_long(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, np.zeros(1600, np.int16), 16000)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    good.rename(odd)
    samples, rate = load_audio(odd)
    assert len(samples) == 1600 and rate == 16000
    with pytest.raises(AudioError, match="cannot read"):
        load_audio(tmp_path / ("x" * 300 + ".wav"))
