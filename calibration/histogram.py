"""A histogram whose bins never depend on the data, so that sums of histograms are exact.

Bins are logarithmic: 16 per octave (a relative width of 4 to 6 %), read straight from the bits of a float32, from
2**-16 to 2**16 on both sides of zero. Two machines that saw two halves of a corpus add integers and get the
histogram of the whole, bit for bit, in any order. (Observers that rescale their bins, as torchao's
HistogramObserver, cannot.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PER_OCTAVE = 16  # a power of two: the top bits of the mantissa
_SHIFT = 23 - 4
_LOWEST, _HIGHEST = -16, 16  # octaves
SIDE = (_HIGHEST - _LOWEST) * _PER_OCTAVE
BINS = 2 * SIDE + 1
"""Bins: SIDE negative ones (most negative first), one around zero, SIDE positive ones."""

_BASE = (127 + _LOWEST) * _PER_OCTAVE  # index of 2**_LOWEST's bin in the shifted bits
_CODES = 1 << (31 - _SHIFT)  # values of the shifted bits, per sign

Array = NDArray[np.float32]


def bin_index(values: Array) -> NDArray[np.int64]:
    """Bin of each value; magnitudes below 2**-16 are zero, those beyond 2**16 go to the last bin."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    magnitude = ((bits & 0x7FFFFFFF) >> _SHIFT).astype(np.int64) - _BASE
    magnitude = np.minimum(magnitude, SIDE - 1)
    return np.where(magnitude < 0, SIDE, np.where(bits < 0, SIDE - 1 - magnitude, SIDE + 1 + magnitude))


def count(values: Array) -> NDArray[np.int64]:
    """(BINS,) how many of ``values`` fall into each bin: the histogram of ``bin_index``, several times faster."""
    bits = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
    raw = np.bincount((bits >> _SHIFT).view(np.int32), minlength=2 * _CODES).astype(np.int64, copy=False)
    counts = np.empty(BINS, np.int64)
    counts[SIDE] = raw[:_BASE].sum() + raw[_CODES : _CODES + _BASE].sum()
    for code, inner, last in ((0, slice(SIDE + 1, BINS), -1), (_CODES, slice(SIDE - 1, None, -1), 0)):
        counts[inner] = raw[code + _BASE : code + _BASE + SIDE]
        counts[last] += raw[code + _BASE + SIDE : code + _CODES].sum()
    return counts


def edges() -> NDArray[np.float64]:
    """(BINS + 1,) boundaries; bin i is edges[i] .. edges[i + 1]."""
    steps = np.arange(SIDE + 1)
    octave, part = np.divmod(steps, _PER_OCTAVE)
    positive = np.ldexp(1.0 + part / _PER_OCTAVE, (octave + _LOWEST).astype(np.int64))
    return np.concatenate([-positive[::-1], positive])


@dataclass(frozen=True)
class ActivationStats:
    """What entered (or left) one layer: rows seen, exact extremes, histogram of all elements.

    ``rows`` are frames or tokens; ``low`` and ``high`` are NaN when there were none. ``counts (BINS,)`` int64.
    """

    rows: int
    low: float
    high: float
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> ActivationStats:
        return cls(0, float("nan"), float("nan"), np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, values: Array, rows: int | None = None) -> ActivationStats:
        """Of ``values (rows, features)``; ``rows`` where the array is laid out otherwise."""
        if not values.size:
            return cls.empty()
        return cls(len(values) if rows is None else rows, float(values.min()), float(values.max()), count(values))

    @property
    def seen(self) -> bool:
        return self.rows > 0

    def __add__(self, other: ActivationStats) -> ActivationStats:
        if not self.seen:
            return other
        if not other.seen:
            return self
        return ActivationStats(
            self.rows + other.rows,
            min(self.low, other.low),
            max(self.high, other.high),
            self.counts + other.counts,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActivationStats):
            return NotImplemented
        extremes = np.array_equal([self.low, self.high], [other.low, other.high], equal_nan=True)
        return self.rows == other.rows and extremes and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    def sample(self, size: int) -> NDArray[np.float32]:
        """``size`` values distributed like what was seen, extremes included: quantiles of the histogram, ascending.

        Raises:
            ValueError: nothing was seen, or ``size`` is below 2.
        """
        if not self.seen or size < 2:
            raise ValueError(f"expected some data and a size of at least 2, found {self.rows} rows, {size}")
        cumulative = np.concatenate([[0], np.cumsum(self.counts)]) / max(1, int(self.counts.sum()))
        wanted = (np.arange(size) + 0.5) / size
        limits = np.clip(edges(), self.low, self.high)
        values = np.interp(wanted, cumulative, limits)
        values[0], values[-1] = self.low, self.high
        # Within the bin around zero and beyond the outermost edges interpolation stays inside the extremes seen.
        return values.astype(np.float32)
