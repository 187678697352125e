"""Audio in: files in blocks, any common dtype to mono float, streaming resampling."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from edge.runtime.errors import AudioError

Samples = NDArray[np.float32]

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000  # Hz
_PEAK_LIMIT = 4.0  # lossy decoders overshoot +-1 a little; int16 values in a float array are far beyond
_SCALES = {"int16": 1.0 / 2**15, "int32": 1.0 / 2**31}
_RESAMPLE_S = 10.0  # seconds read at a time
_CONVERT = "convert it first: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"


def load_audio(path: Path | str) -> tuple[Samples, int]:
    """Read a whole audio file.

    Returns:
        Samples as float32 in [-1, 1], (n,) or (n, channels), and the sample rate in Hz.

    Raises:
        AudioError: missing, a directory, empty, not audio, no frames, or an absurd sample rate.
    """
    with _open(path) as file:
        return _read(file, -1, path), file.samplerate


def read_blocks(path: Path | str, seconds: float = 1.0) -> Iterator[tuple[Samples, int]]:
    """Read an audio file ``seconds`` at a time, so that hours of audio need no more memory than one block.

    Yields:
        (samples as in :func:`load_audio`, sample rate in Hz).

    Raises:
        AudioError: as :func:`load_audio`, when the first block is asked for; or where the file is damaged.
    """
    with _open(path) as file:
        frames = max(1, round(seconds * file.samplerate))
        while len(block := _read(file, frames, path)):
            yield block, file.samplerate


def audio_seconds(path: Path | str) -> float:
    """Length of an audio file in seconds, as its header states it.

    Raises:
        AudioError: as :func:`load_audio`; damage after the header is not looked for.
    """
    with _open(path) as file:
        return float(file.frames / file.samplerate)


def _open(path: Path | str) -> Any:
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such audio file; check the path") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise AudioError(f"{path}: cannot read the audio file: {error.strerror}") from None
    if not path.is_file():
        raise AudioError(f"{path}: expected an audio file, found a directory or device; pass one file at a time")
    if status.st_size == 0:
        raise AudioError(f"{path}: expected audio, found an empty file (0 bytes); record or copy it again")
    try:
        file = soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path))  # names need not be UTF-8
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which states no format
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(
            f"{path}: expected WAV, FLAC, Ogg, Opus or MP3, found something else ({reason}); {_CONVERT}"
        ) from None
    try:
        check_sample_rate(file.samplerate, str(path))
        if file.frames <= 0:
            raise AudioError(f"{path}: expected audio, found a header and no samples; record or copy it again")
        if file.channels > 2:
            raise AudioError(f"{path}: expected 1 or 2 channels, found {file.channels}; {_CONVERT}")
    except AudioError:
        file.close()
        raise
    return file


def _read(file: Any, frames: int, path: Path | str) -> Samples:
    try:
        block: Samples = file.read(frames, dtype="float32")
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise AudioError(f"{path}: damaged after {file.tell()} frames ({reason}); {_CONVERT}") from None
    return block


def check_sample_rate(sample_rate: float, where: str = "sample_rate") -> int:
    """``sample_rate`` in Hz as an int; raises AudioError outside 4 to 384 kHz."""
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"{where}: expected a sample rate in Hz, found {sample_rate!r}")
    if not (
        math.isfinite(sample_rate)
        and MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE
        and sample_rate == int(sample_rate)
    ):
        raise AudioError(
            f"{where}: expected a sample rate of {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, found {sample_rate!r} Hz; "
            "the header may be damaged"
        )
    return int(sample_rate)


def to_mono_float(samples: Any) -> Samples:
    """Samples as mono float32, nominally in [-1, 1].

    Takes int16, int32, float32 or float64 of shape (n,), (n, 1) or (n, 2); two channels are averaged. Floats
    are taken as they are: the small overshoot of lossy decoders is kept, as WeNet keeps it.

    Raises:
        AudioError: another shape or dtype; NaN or infinity (how many, and where the first is); or floats beyond
            +-4, which are integers that were not scaled.
    """
    array = np.asarray(samples)
    kind = array.dtype.name
    if kind not in ("int16", "int32", "float32", "float64"):
        if array.size == 0 and isinstance(samples, (list, tuple)):
            return np.zeros(0, np.float32)
        raise AudioError(f"expected samples as int16, int32, float32 or float64, found {kind}; use .astype first")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] not in (1, 2)):
        hint = "mix the channels down first: samples.mean(axis=1)"
        if array.ndim == 2 and array.shape[0] in (1, 2):
            hint = "put the channels last: samples.T"
        raise AudioError(f"expected samples of shape (n,), (n, 1) or (n, 2), found {array.shape}; {hint}")
    if kind in _SCALES:
        values = array.astype(np.float32) * np.float32(_SCALES[kind])
        return _mono(values)
    finite = np.isfinite(array)
    if not finite.all():
        bad = array.size - int(np.count_nonzero(finite))
        first = int(np.argmax(~finite.reshape(len(array), -1).all(axis=1)))
        value = array.reshape(len(array), -1)[first]
        value = value[~np.isfinite(value)][0]
        raise AudioError(
            f"expected finite samples, found {bad} of {array.size} that are not (first: {value} at frame {first}); "
            "check the capture or the decoder"
        )
    peak = float(np.abs(array).max()) if array.size else 0.0
    if peak > _PEAK_LIMIT:
        raise AudioError(
            f"expected float samples in [-1, 1], found a peak of {peak:.6g}; divide 16-bit values by 32768, "
            "or pass them as int16"
        )
    return _mono(array.astype(np.float32))


def _mono(array: Samples) -> Samples:
    """(n,), (n, 1) or (n, 2) float32 -> contiguous (n,)."""
    if array.ndim == 1:
        return np.ascontiguousarray(array)
    if array.shape[1] == 1:
        return np.ascontiguousarray(array[:, 0])
    return np.asarray((array[:, 0] + array[:, 1]) * np.float32(0.5))


class Resampler:
    """Streaming resampler to the model's rate; the output does not depend on how the input is cut.

    HQ (20 bit), not VHQ: both are far below the 16 bits of the audio, and HQ holds back half as much
    (44.1 kHz to 16 kHz: 45 ms against 93 ms until the first sample).
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = check_sample_rate(rate_in), rate_out
        self._stream: Any = None
        if rate_in != rate_out:
            self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")

    def accept(self, samples: Samples) -> Samples:
        """(n,) float32 at ``rate_in`` -> what can be told so far at ``rate_out``, (m,) float32."""
        if self._stream is None or not len(samples):
            return samples
        out: Samples = self._stream.resample_chunk(samples)
        return out

    def finish(self) -> Samples:
        """The samples still held back; call once, at the end."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        out: Samples = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return out


def read_resampled(path: Path | str, rate: int, longest_s: float = math.inf) -> tuple[Samples, float]:
    """A recording for a model: mono float32 (n,) at ``rate`` Hz, of its first ``longest_s`` seconds; and the seconds of
    the file that this is.

    Raises:
        AudioError: as :func:`read_blocks` and :func:`to_mono_float`; names the file.
    """
    resampler, parts, seconds = None, [], 0.0
    for samples, found in read_blocks(path, _RESAMPLE_S):
        taken = samples if longest_s == math.inf else samples[: max(0, round((longest_s - seconds) * found))]
        resampler = resampler or Resampler(found, rate)
        try:
            parts.append(resampler.accept(to_mono_float(taken)))
        except AudioError as error:
            raise AudioError(f"{path}: {error}") from None
        seconds += len(taken) / found
        if seconds >= longest_s:
            break
    if resampler is not None:
        parts.append(resampler.finish())
    return np.concatenate([np.zeros(0, np.float32), *parts]), seconds
