"""What is streamed: the start of a recording, or noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edge.runtime.audio import Samples
from edge.runtime.errors import EdgeError

_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3")


class BenchError(EdgeError, ValueError):
    """Bundles or recordings that cannot be measured as asked."""


def noise(seconds: float, rate: int, seed: int = 0) -> Samples:
    """Noise whose loudness changes every 0.1 s, as that of speech does; (n,) float32."""
    random = np.random.default_rng(seed)
    loudness = np.repeat(random.uniform(0, 0.1, math.ceil(seconds * 10)), rate // 10)
    return (random.standard_normal(len(loudness)) * loudness).clip(-1, 1).astype(np.float32)


def recordings(paths: list[Path]) -> list[Path]:
    """The files, and the recordings that lie directly in the folders.

    Raises:
        BenchError: a folder without recordings.
    """
    found = []
    for path in paths:
        files = [path] if not path.is_dir() else sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not files:
            raise BenchError(f"{path}: expected recordings ({', '.join(_SUFFIXES)}) in this folder, found none")
        found += files
    return found
