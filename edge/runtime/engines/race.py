"""Chunks through several loaded backends in turn, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TypeVar

from edge.runtime.engines.base import Backend, Preparing, initial_state, noise_windows
from edge.runtime.manifest import Manifest

_LEFT_CHUNKS = 4
_WINDOWS = 8
_LEAST_CHUNKS = 3  # per backend, however slow

Name = TypeVar("Name")


def race(manifest: Manifest, backends: Mapping[Name, Backend], seconds: float) -> dict[Name, float]:
    """Median milliseconds that each of ``backends``, all with the bundle of ``manifest``, takes to encode a chunk.

    Args:
        manifest: of the bundle.
        backends: at least one.
        seconds: of measuring, all together; at least three chunks each are measured, after four that are not.
    """
    chunk = manifest.stream.default_chunk
    windows = noise_windows(manifest, chunk, _WINDOWS)
    left = chunk * _LEFT_CHUNKS
    states = {name: initial_state(manifest.caches, left) for name in backends}
    for name, backend in backends.items():  # until the left context is full, and shapes have been seen
        if isinstance(backend, Preparing):
            backend.prepare(chunk, left)
        for at in range(_LEFT_CHUNKS):
            states[name] = backend.step(windows[at], states[name]).state
    times: dict[Name, list[float]] = {name: [] for name in backends}
    end, turn = time.perf_counter() + seconds, 0
    while turn < _LEAST_CHUNKS or time.perf_counter() < end:
        for name, backend in backends.items():
            began = time.perf_counter()
            backend.step(windows[turn % len(windows)], states[name])
            times[name].append((time.perf_counter() - began) * 1000.0)
        turn += 1
    return {name: statistics.median(values) for name, values in times.items()}
