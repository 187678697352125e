"""How many threads one engine needs for one bundle here: measured once per machine and bundle, then remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import logging

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import Backend, load_backend
from edge.runtime.engines.choice import Choice, choice_file, remember, remembered
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.contract import default_threads
from edge.runtime.engines.race import race
from edge.runtime.errors import BackendError

log = logging.getLogger(__name__)

SECONDS = 0.4  # of measuring per pair of candidates, not counting the time to load the second
LARGE = 100_000_000
"""Bytes of an encoder that is not measured, and gets as many threads as there are cores (four at most): a second copy
costs seconds and its memory (474 M parameters: int8 1.5 s and 1 GB, fp32 4 to 8 s and 2 to 4 GB). Two threads take 0.67
of the time of one there in fp32; in int8 0.99, for 1.4 of the CPU time (docs/engines.md)."""
_MARGIN = 0.9  # more threads must take less than this share of the time: others have use for the core too


def load_measured(bundle: Bundle, config: EngineConfig) -> tuple[Backend, Choice | None]:
    """Load ``bundle`` into the engine of ``config`` with the number of threads that pays.

    Errors as ``load_backend``; threads that are given are used. Anything but the CPU is not measured:
    there, threads only matter for what the device does not do.

    Returns:
        The backend; and how its threads were chosen, None where there was nothing to choose.
    """
    counts = candidates(bundle, config)
    if len(counts) == 1:
        return _load(bundle, config, counts[0]), None
    file = choice_file(bundle, config)
    known = remembered(file)
    if known is not None and known.threads in counts:
        return _load(bundle, config, known.threads), known
    backend = _load(bundle, config, counts[0])
    times: dict[str, float] = {}
    # Upwards, two at a time: never more than two copies in memory, and a small model is done after the first pair.
    for count in counts[1:]:
        pair = {backend.threads: backend}
        with contextlib.suppress(BackendError):  # no memory for a second one
            pair[count] = _load(bundle, config, count)
        if len(pair) < 2:
            break
        found = race(bundle.manifest, pair, SECONDS)
        times |= {thread_count(n): round(ms, 3) for n, ms in found.items()}
        if found[count] >= _MARGIN * found[backend.threads]:
            break
        backend = pair[count]
    if not times:
        return backend, None
    choice = Choice(config.engine, config.device, backend.threads, times)
    log.info("threads: %d for %s (%s)", choice.threads, config.engine, choice.reason)
    remember(file, choice)
    return backend, choice


def _load(bundle: Bundle, config: EngineConfig, threads: int) -> Backend:
    return load_backend(bundle, dataclasses.replace(config, threads=threads))


def candidates(bundle: Bundle, config: EngineConfig) -> list[int]:
    """Numbers of threads worth a try, rising: what was asked for, or 1, 2, 4, ... and the most that are used."""
    if config.threads is not None:
        return [config.threads]
    most = default_threads()
    if config.device != "CPU" or bundle.manifest.encoder.bytes > LARGE:
        return [most]
    return [*(count for count in (1, 2, 4, 8) if count < most), most]


def thread_count(threads: int) -> str:
    """1 thread, 2 threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"
