"""What was chosen for a bundle on this machine, and where that is remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import ENGINES, MAX_THREADS
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.contract import default_threads
from edge.system.files import write_json
from edge.system.user_cache import user_cache
from edge.system.versions import version

_SCHEMA = 3


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why."""

    engine: str
    device: str
    threads: int
    chunk_ms: dict[str, float]  # "engine device" or "n threads" -> median ms to encode one chunk
    remembered: bool = False  # from an earlier run

    @property
    def reason(self) -> str:
        """One line for people."""
        if len(self.chunk_ms) < 2:
            return "the only one that runs here"
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.chunk_ms.items())
        return f"per chunk: {times}" + (", measured before" if self.remembered else "")


def choice_file(bundle: Bundle, request: EngineConfig) -> Path | None:
    """Where the choice for this machine, bundle and request is kept; None without a cache folder."""
    folder = user_cache("engine")
    if folder is None:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    identity = {
        "schema": _SCHEMA,
        "cpu": cpu_name(),
        "cores": cores,
        "most_threads": default_threads(),
        "engines": {name: version(name) for name in ENGINES},
        "encoder": bundle.manifest.checksums[bundle.manifest.encoder.file],
        "request": asdict(request),
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


def remembered(file: Path | None) -> Choice | None:
    """The choice in ``file``; None when there is none, or the file is not what was written."""
    if file is None:
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        times = {str(name): float(ms) for name, ms in data["chunk_ms"].items()}
        engine, device, threads = data["engine"], data["device"], data["threads"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if type(engine) is not str or type(device) is not str or type(threads) is not int:
        return None
    return Choice(engine, device, threads, times, remembered=True) if 1 <= threads <= MAX_THREADS else None


def remember(file: Path | None, choice: Choice) -> None:
    """Write ``choice`` to ``file``, where it can be written."""
    if file is None:
        return
    with contextlib.suppress(OSError):  # a full disk: measured again next time
        write_json(file, {k: v for k, v in asdict(choice).items() if k != "remembered"}, indent=None)
