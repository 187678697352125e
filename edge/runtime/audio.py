"""Samples of any common dtype to mono float, and streaming resampling; files are in ``edge.runtime.audio_files``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import soxr

from edge.runtime.channels import Samples as Samples
from edge.runtime.channels import mean
from edge.runtime.errors import AudioError

MAX_CHANNELS = 64
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000  # Hz
_PEAK_LIMIT = 4.0  # lossy decoders overshoot +-1 a little; int16 values in a float array are far beyond
_SCALES = {"int16": 1.0 / 2**15, "int32": 1.0 / 2**31}


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
    """:func:`checked` samples with their channels averaged, contiguous (n,); ``edge.runtime.channels`` decides better
    where a recording is at hand."""
    return mean(checked(samples))


def checked(samples: Any) -> Samples:
    """Samples as float32 (n,) or (n, channels), nominally in [-1, 1].

    Takes int16, int32, float32 or float64 of shape (n,) or (n, channels). Floats are taken as they are: the small
    overshoot of lossy decoders is kept, as WeNet keeps it.

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
    turned = array.ndim == 2 and array.shape[0] in (1, 2) and array.shape[1] > 2
    if array.ndim not in (1, 2) or turned or (array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS):
        hint = "put the channels last: samples.T"
        if array.ndim not in (1, 2):
            hint = "mix the channels down first: samples.mean(axis=1)"
        raise AudioError(f"expected samples of shape (n,) or (n, channels), found {array.shape}; {hint}")
    if kind in _SCALES:
        return array.astype(np.float32) * np.float32(_SCALES[kind])
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
    return array.astype(np.float32)


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
