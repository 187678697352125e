"""Which engine is faster here: measured once per machine and bundle, then remembered."""

from __future__ import annotations

import contextlib
import logging

from edge.runtime.backend import Backend
from edge.runtime.bundle import Bundle
from edge.runtime.choice import Choice, choice_file, remember, remembered
from edge.runtime.errors import BackendError
from edge.runtime.race import race
from edge.runtime.threads import load_measured

log = logging.getLogger(__name__)

SECONDS = 2.0  # of measuring, not counting the time to load
_MARGIN = 0.95  # the first candidate stays unless another takes less than this share of its time


def choose(
    bundle: Bundle,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "f32",
    seconds: float = SECONDS,
) -> tuple[Backend, Choice]:
    """Load ``bundle`` into the engine that encodes a chunk fastest.

    Args:
        bundle: an opened bundle.
        device: "cpu", "gpu" or "auto", as for ``Recognizer.load``; a GPU leaves openvino only.
        threads, precision: as for ``Recognizer.load``; each engine runs with the threads that pay, where none are
            given; a precision other than f32 leaves openvino only.
        seconds: of measuring engines.

    Raises:
        BackendError: no engine runs the bundle; the message is that of the first one.
    """
    candidates = _candidates(device, precision)
    file = choice_file(bundle, "auto", device, threads, precision)
    known = remembered(file)
    if known is not None and (known.engine, known.device) in candidates and threads in (None, known.threads):
        # An engine that has gone since, or fails now, is measured again.
        with contextlib.suppress(BackendError):
            backend, _ = load_measured(bundle, known.engine, known.device, known.threads, precision)
            log.info("engine auto: %s on %s (%s)", known.engine, backend.device, known.reason)
            return backend, known
    backend, choice = _measure(bundle, candidates, threads, precision, seconds)
    log.info("engine auto: %s on %s (%s)", choice.engine, choice.device, choice.reason)
    remember(file, choice)
    return backend, choice


def _candidates(device: str, precision: str) -> list[tuple[str, str]]:
    """(engine, device), the preferred one first."""
    device = device.lower()
    found = [("openvino", device)]
    if device == "auto":
        found = [("openvino", "auto"), ("openvino", "cpu")] if _has_gpu() else [("openvino", "cpu")]
    if device in ("cpu", "auto") and precision == "f32":
        found.insert(0, ("onnxruntime", "cpu"))
    return found


def _has_gpu() -> bool:
    from edge.runtime.openvino_core import devices

    with contextlib.suppress(BackendError):
        return any(name.startswith("GPU") for name in devices())
    return False


def _measure(
    bundle: Bundle, candidates: list[tuple[str, str]], threads: int | None, precision: str, seconds: float
) -> tuple[Backend, Choice]:
    """Every engine with the threads that it needs, against the others."""
    loaded: dict[tuple[str, str], Backend] = {}
    refusals: list[BackendError] = []
    for engine, device in candidates:
        try:
            loaded[engine, device], _ = load_measured(bundle, engine, device, threads, precision)
        except BackendError as error:
            log.info("engine auto: without %s: %s", engine, error)
            refusals.append(error)
    if not loaded:
        raise refusals[0]
    medians = race(bundle.manifest, loaded, seconds) if len(loaded) > 1 else dict.fromkeys(loaded, 0.0)
    best = next(iter(medians))
    for key, value in medians.items():
        if value < _MARGIN * medians[best]:
            best = key
    engine, device = best
    named = {f"{name} {loaded[name, where].device.upper()}": round(ms, 3) for (name, where), ms in medians.items()}
    return loaded[best], Choice(engine, device, loaded[best].threads, named)
