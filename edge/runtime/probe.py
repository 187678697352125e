"""Which engine is faster here: measured once per machine and bundle, then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge.runtime.backend import ENGINES, Backend, Preparing, initial_state, load_backend
from edge.runtime.bundle import Bundle
from edge.runtime.errors import BackendError
from edge.runtime.options import DEFAULT_CHUNK
from edge.runtime.user_cache import user_cache

log = logging.getLogger(__name__)

SECONDS = 2.0  # of measuring, not counting the time to load
_PACKAGES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}
_LEFT_CHUNKS = 4
_LEAST_CHUNKS = 3  # per engine, however slow
_MARGIN = 0.95  # the first candidate stays unless another takes less than this share of its time
_SCHEMA = 1


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why."""

    engine: str
    device: str
    chunk_ms: dict[str, float]  # "engine device" -> median ms to encode one chunk
    remembered: bool = False  # from an earlier run

    @property
    def reason(self) -> str:
        """One line for people."""
        if len(self.chunk_ms) < 2:
            return "the only one that runs here"
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.chunk_ms.items())
        return f"per chunk: {times}" + (", measured before" if self.remembered else "")


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
        threads, precision: as for ``Recognizer.load``; a precision other than f32 leaves openvino only.
        seconds: of measuring.

    Raises:
        BackendError: no engine runs the bundle; the message is that of the first one.
    """
    candidates = _candidates(device, precision)
    file = _file(bundle, device, threads, precision)
    known = _remembered(file, candidates)
    if known is not None:
        # An engine that has gone since, or fails now, is measured again.
        with contextlib.suppress(BackendError):
            backend = load_backend(bundle, known.engine, known.device, threads, precision)
            log.info("engine auto: %s on %s (%s)", known.engine, backend.device, known.reason)
            return backend, known
    backend, choice = _measure(bundle, candidates, threads, precision, seconds)
    log.info("engine auto: %s on %s (%s)", choice.engine, choice.device, choice.reason)
    _remember(file, choice)
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
    """Chunks of every candidate in turn, so that whatever else the machine does hits all alike."""
    loaded: dict[tuple[str, str], Backend] = {}
    refusals: list[BackendError] = []
    for engine, device in candidates:
        try:
            loaded[engine, device] = load_backend(bundle, engine, device, threads, precision)
        except BackendError as error:
            log.info("engine auto: without %s: %s", engine, error)
            refusals.append(error)
    if not loaded:
        raise refusals[0]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in loaded}
    if len(loaded) > 1:
        stream, mel = bundle.manifest.stream, bundle.manifest.features.num_mel_bins
        chunk = stream.static_chunk or min(DEFAULT_CHUNK, stream.max_chunk, stream.max_positions)
        size = ((chunk - 1) * stream.subsampling + stream.right_context + 1, mel)
        random = np.random.default_rng(0)
        windows = [random.normal(10.0, 3.0, size).astype(np.float32) for _ in range(8)]
        left = chunk * _LEFT_CHUNKS
        states = {key: initial_state(bundle.manifest.caches, left) for key in loaded}
        for key, backend in loaded.items():  # until the left context is full, and shapes have been seen
            if isinstance(backend, Preparing):
                backend.prepare(chunk, left)
            for at in range(_LEFT_CHUNKS):
                states[key] = backend.step(windows[at], states[key]).state
        end, turn = time.perf_counter() + seconds, 0
        while turn < _LEAST_CHUNKS or time.perf_counter() < end:
            for key, backend in loaded.items():
                began = time.perf_counter()
                backend.step(windows[turn % len(windows)], states[key])
                times[key].append((time.perf_counter() - began) * 1000.0)
            turn += 1
    medians = {key: statistics.median(values) if values else 0.0 for key, values in times.items()}
    best = next(iter(medians))
    for key, value in medians.items():
        if value < _MARGIN * medians[best]:
            best = key
    engine, device = best
    named = {f"{name} {loaded[name, where].device.upper()}": round(ms, 3) for (name, where), ms in medians.items()}
    return loaded[best], Choice(engine, device, named)


def _file(bundle: Bundle, device: str, threads: int | None, precision: str) -> Path | None:
    """Where the choice for this machine and bundle is kept; None without a cache folder."""
    folder = user_cache("engine")
    if folder is None:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: _version(package) for name, packages in _PACKAGES.items() for package in packages}
    identity = {
        "schema": _SCHEMA,
        "cpu": cpu_name(),
        "cores": cores,
        "engines": {name: versions[name] for name in ENGINES},
        "encoder": bundle.manifest.checksums[bundle.manifest.encoder.file],
        "device": device.lower(),
        "threads": threads,
        "precision": precision,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return folder / f"{key[:32]}.json"


def cpu_name() -> str:
    """Model name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _remembered(file: Path | None, candidates: list[tuple[str, str]]) -> Choice | None:
    """The choice in ``file``; None when there is none, or the file is not what was written."""
    if file is None:
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        times = {str(name): float(ms) for name, ms in data["chunk_ms"].items()}
        choice = Choice(str(data["engine"]), str(data["device"]), times, remembered=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return choice if (choice.engine, choice.device) in candidates else None


def _remember(file: Path | None, choice: Choice) -> None:
    if file is None:
        return
    with contextlib.suppress(OSError):  # a full disk: measured again next time
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump({k: v for k, v in asdict(choice).items() if k != "remembered"}, out)
            Path(name).replace(file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
