"""Which engine is faster here: measured once per machine and bundle, then remembered."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import Backend
from edge.runtime.engines.choice import Choice, choice_file, remember, remembered
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.race import race
from edge.runtime.engines.threads import load_measured
from edge.runtime.errors import BackendError

log = logging.getLogger(__name__)

SECONDS = 2.0  # of measuring, not counting the time to load
_MARGIN = 0.95  # the first candidate stays unless another takes less than this share of its time


def choose(bundle: Bundle, config: EngineConfig, seconds: float = SECONDS) -> tuple[Backend, Choice]:
    """Load ``bundle`` into the engine that encodes a chunk fastest.

    Args:
        bundle: an opened bundle.
        config: with "auto" as engine. A GPU, or a precision other than f32, leaves openvino only; each engine runs with
            the threads that pay, where none are given.
        seconds: of measuring engines.

    Raises:
        BackendError: no engine runs the bundle; the message is that of the first one.
    """
    candidates = _candidates(config)
    file = choice_file(bundle, config)
    known = remembered(file)
    if known is not None and config.threads in (None, known.threads):
        wanted = replace(config, engine=known.engine, device=known.device)
        if wanted in candidates:
            # An engine that has gone since, or fails now, is measured again.
            with contextlib.suppress(BackendError):
                backend, _ = load_measured(bundle, replace(wanted, threads=known.threads))
                log.info("engine auto: %s on %s (%s)", known.engine, backend.device, known.reason)
                return backend, known
    backend, choice = _measure(bundle, candidates, seconds)
    log.info("engine auto: %s on %s (%s)", choice.engine, choice.device, choice.reason)
    remember(file, choice)
    return backend, choice


def _candidates(config: EngineConfig) -> list[EngineConfig]:
    """The preferred one first."""
    devices = [config.device]
    if config.device == "AUTO":
        devices = ["AUTO", "CPU"] if _has_gpu() else ["CPU"]
    found = [replace(config, engine="openvino", device=device) for device in devices]
    if config.device in ("CPU", "AUTO") and config.precision == "f32":
        found.insert(0, replace(config, engine="onnxruntime", device="CPU"))
    return found


def _has_gpu() -> bool:
    from edge.runtime.engines.openvino.core import devices

    with contextlib.suppress(BackendError):
        return any(name.startswith("GPU") for name in devices())
    return False


def _measure(bundle: Bundle, candidates: list[EngineConfig], seconds: float) -> tuple[Backend, Choice]:
    """Every engine with the threads that it needs, against the others."""
    loaded: dict[EngineConfig, Backend] = {}
    refusals: list[BackendError] = []
    for config in candidates:
        try:
            loaded[config], _ = load_measured(bundle, config)
        except BackendError as error:
            log.info("engine auto: without %s: %s", config.engine, error)
            refusals.append(error)
    if not loaded:
        raise refusals[0]
    medians = race(bundle.manifest, loaded, seconds) if len(loaded) > 1 else dict.fromkeys(loaded, 0.0)
    best = next(iter(medians))
    for key, value in medians.items():
        if value < _MARGIN * medians[best]:
            best = key
    named = {f"{config.engine} {loaded[config].device}": round(ms, 3) for config, ms in medians.items()}
    return loaded[best], Choice(best.engine, best.device, loaded[best].threads, named)
