"""How many threads one engine needs for one bundle here: measured once per machine and bundle, then remembered."""

from __future__ import annotations

import contextlib
import logging

from edge.runtime.backend import Backend, load_backend
from edge.runtime.bundle import Bundle
from edge.runtime.choice import Choice, choice_file, remember, remembered
from edge.runtime.errors import BackendError
from edge.runtime.graph_contract import default_threads
from edge.runtime.race import race

log = logging.getLogger(__name__)

SECONDS = 0.4  # of measuring per pair of candidates, not counting the time to load the second
LARGE = 100_000_000
"""Bytes of an encoder that is not measured, and gets as many threads as there are cores (four at most): a second copy
costs seconds and its memory (474 M parameters: int8 1.5 s and 1 GB, fp32 4 to 8 s and 2 to 4 GB). Two threads take 0.67
of the time of one there in fp32; in int8 0.99, for 1.4 of the CPU time (docs/engines.md)."""
_MARGIN = 0.9  # more threads must take less than this share of the time: others have use for the core too


def load_measured(
    bundle: Bundle, engine: str, device: str = "cpu", threads: int | None = None, precision: str = "f32"
) -> tuple[Backend, Choice | None]:
    """Load ``bundle`` into ``engine`` with the number of threads that pays.

    Arguments and errors as ``load_backend``; ``threads`` that are given are used. Anything but the CPU is not measured:
    there, threads only matter for what the device does not do.

    Returns:
        The backend; and how its threads were chosen, None where there was nothing to choose.
    """
    counts = candidates(bundle, device, threads)
    if len(counts) == 1:
        return load_backend(bundle, engine, device, counts[0], precision), None
    file = choice_file(bundle, engine, device, None, precision)
    known = remembered(file)
    if known is not None and known.threads in counts:
        return load_backend(bundle, engine, device, known.threads, precision), known
    backend = load_backend(bundle, engine, device, counts[0], precision)
    times: dict[str, float] = {}
    # Upwards, two at a time: never more than two copies in memory, and a small model is done after the first pair.
    for count in counts[1:]:
        pair = {backend.threads: backend}
        with contextlib.suppress(BackendError):  # no memory for a second one
            pair[count] = load_backend(bundle, engine, device, count, precision)
        if len(pair) < 2:
            break
        found = race(bundle.manifest, pair, SECONDS)
        times |= {thread_count(n): round(ms, 3) for n, ms in found.items()}
        if found[count] >= _MARGIN * found[backend.threads]:
            break
        backend = pair[count]
    if not times:
        return backend, None
    choice = Choice(engine, device, backend.threads, times)
    log.info("threads: %d for %s (%s)", choice.threads, engine, choice.reason)
    remember(file, choice)
    return backend, choice


def candidates(bundle: Bundle, device: str, threads: int | None) -> list[int]:
    """Numbers of threads worth a try, rising: what was asked for, or 1, 2, 4, ... and the most that are used."""
    if threads is not None:
        return [threads]
    most = default_threads()
    if device.lower() != "cpu" or bundle.manifest.encoder.bytes > LARGE:
        return [most]
    return [*(count for count in (1, 2, 4, 8) if count < most), most]


def thread_count(threads: int) -> str:
    """1 thread, 2 threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"
