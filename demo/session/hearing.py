"""Blocks of a source become 16 kHz for the recognizers and columns for the eye."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.audio.level import LevelWatch
from demo.events import Block, Heard
from demo.session.audio_buffer import RATE
from edge.runtime.audio import Resampler
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions

_POINT = RATE // 100  # samples per point of the wave: 10 ms


class Hearing:
    """Everything one block is turned into, once for all lanes."""

    def __init__(self, rate: int, level: LevelWatch) -> None:
        """``level`` has been told each block before ``accept`` gets it."""
        self.rate, self._level = rate, level
        self._resampler = Resampler(rate, RATE)
        self._fbank = StreamingFbank(FeatureOptions())
        self._rest: NDArray[np.float32] = np.zeros(0, np.float32)  # less than one point of the wave

    def accept(self, block: Block) -> tuple[NDArray[np.float32], Heard]:
        """The block's samples at 16 kHz, as far as the resampler can tell yet, and what there is to see."""
        samples = self._resampler.accept(block.samples)
        columns, wave = self._fbank.accept(samples), self._wave(samples)
        return samples, Heard(columns, wave, self._level.rms_db, self._level.peak_db)

    def finish(self) -> NDArray[np.float32]:
        """The samples the resampler held back, (n,) at 16 kHz; call once, at the end."""
        return self._resampler.finish()

    def _wave(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        joined = np.concatenate([self._rest, samples])
        points = len(joined) // _POINT
        self._rest = joined[points * _POINT :].copy()
        cells = joined[: points * _POINT].reshape(points, _POINT)
        if not points:
            return np.zeros((0, 2), np.float32)
        return np.stack([cells.min(axis=1), cells.max(axis=1)], axis=1)
