"""Several channels to one, by what is in them: their mean, unless that is far quieter than one of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_FAR_LESS = 0.1  # of the loudest channel's energy: two channels that are alike give 1, one of two 0.25
_ENOUGH = 0.3  # to return to the mean
_MEMORY_S = 0.5  # half-life of the energies that are compared; silence changes nothing
_AUDIBLE = 1e-9  # mean square, -90 dB: below it nothing is decided


def mean(block: Samples) -> Samples:
    """(n,) or (n, channels) float32 -> (n,) float32, contiguous."""
    if block.ndim == 1 or block.shape[1] == 1:
        return np.ascontiguousarray(block.reshape(len(block)))
    if block.shape[1] == 2:
        return np.asarray((block[:, 0] + block[:, 1]) * np.float32(0.5))
    return np.asarray(block.mean(axis=1, dtype=np.float32))


class ChannelMixer:
    """Mono of a recording or a microphone, block after block.

    The mean of the channels, as WeNet and every player mix. Where it has far less energy than one channel (opposite
    phase, as balanced cables wired to both give; one live channel among many), that channel is taken alone.

    Args:
        rate: Hz.
        channel: from 1; take this one always. None: decide.
    """

    def __init__(self, rate: int, channel: int | None = None) -> None:
        self.taken: int | None = channel
        """The channel that is taken alone, from 1; None: the mean is."""
        self._fixed, self._rate = channel is not None, rate
        self._mean = 0.0
        self._each: NDArray[np.float64] | None = None

    def accept(self, block: Samples) -> Samples:
        """(n,) or (n, channels) float32 -> (n,) float32, contiguous.

        Raises:
            ValueError: there is no channel of the number that was asked for.
        """
        channels = 1 if block.ndim == 1 else block.shape[1]
        if self._fixed and self.taken is not None and not 1 <= self.taken <= channels:
            raise ValueError(f"channel: expected 1 to {channels}, found {self.taken}")
        mixed = mean(block)
        if channels == 1:
            return mixed
        if not self._fixed and len(block):
            self._decide(block, mixed)
        if self.taken is None or self.taken > channels:
            return mixed
        return np.ascontiguousarray(block[:, self.taken - 1])

    def _decide(self, block: Samples, mixed: Samples) -> None:
        keep = 0.5 ** (len(block) / self._rate / _MEMORY_S)
        each = np.square(block, dtype=np.float64).sum(axis=0)
        if self._each is None or len(self._each) != len(each):
            self._each, self._mean = np.zeros(len(each)), 0.0
        if max(each.max(), self._each.max()) < _AUDIBLE * len(block):
            return
        self._each = self._each * keep + each
        self._mean = self._mean * keep + float(np.square(mixed, dtype=np.float64).sum())
        loudest = int(self._each.argmax())
        share = self._mean / float(self._each[loudest])
        if self.taken is None and share < _FAR_LESS:
            self.taken = loudest + 1
        elif self.taken is not None:
            if share > _ENOUGH:
                self.taken = None
            elif self._each[self.taken - 1] < _FAR_LESS * self._each[loudest]:
                self.taken = loudest + 1

    def told(self) -> str:
        """One sentence when a channel is taken because of what is in it, else ""."""
        if self._fixed or self.taken is None or self._each is None:
            return ""
        return (
            f"channel {self.taken} of {len(self._each)} is heard alone: mixed, the channels cancel each other or are "
            "mostly silent; choose one with --channel N"
        )
