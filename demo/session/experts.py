"""Which experts worked during the last second of audio."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

SPAN_MS = 1000.0


class ExpertWindow:
    """Frames routed to each expert in the last chunks that make up a second; a longer chunk counts as a whole."""

    def __init__(self, layers: int, experts: int) -> None:
        self._zero = np.zeros((layers, experts), np.int64)
        self._chunks: deque[tuple[NDArray[np.int64], float]] = deque()
        self._span = 0.0

    def add(self, counts: NDArray[np.int64], ms: float) -> None:
        """``counts`` (layers, experts) of a chunk of ``ms`` of audio."""
        self._chunks.append((counts, ms))
        self._span += ms
        while len(self._chunks) > 1 and self._span - self._chunks[0][1] >= SPAN_MS:
            self._span -= self._chunks.popleft()[1]

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(share, entropy) as ``ExpertLoad`` has them."""
        counts = sum((counts for counts, _ in self._chunks), self._zero)
        return shares(counts), entropy(counts)


def shares(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Counts (layers, experts) as shares of their row; rows of zeros stay zero."""
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def entropy(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(layers,) in 0..1: the entropy of each row's shares over that of a uniform row; 0 for zeros or one expert."""
    share = shares(counts).astype(np.float64)
    terms = np.where(share > 0, -share * np.log(np.where(share > 0, share, 1.0)), 0.0)
    return (terms.sum(axis=1) / np.log(max(2, counts.shape[1]))).astype(np.float32)
