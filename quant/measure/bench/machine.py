"""What was measured on what: bundle, processor, versions, memory of this process."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.bundle import MANIFEST, Bundle, sha256
from edge.system.versions import versions as installed

# What decides how fast 8-bit integers are: dot-product and matrix instructions of x86-64 and Arm.
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve")
_PACKAGES = ("u2edge", "numpy", "onnxruntime", "openvino", "kaldi-native-fbank", "soundfile", "soxr", "jiwer")
_MB = 2**20


@dataclass(frozen=True)
class BundleId:
    """Which bundle was measured. ``sha256`` covers the whole manifest, and so every file's checksum."""

    name: str
    path: str
    sha256: str
    scheme: str  # of the encoder: fp32, static, ...
    decoder_scheme: str
    storage: str
    bytes: int  # of all its files
    checkpoint_sha256: str
    tools: dict[str, str]


def bundle_id(bundle: Bundle) -> BundleId:
    """What identifies an opened bundle."""
    manifest = bundle.manifest
    names = {MANIFEST, *manifest.checksums}
    return BundleId(
        name=manifest.name,
        path=str(bundle.directory),
        sha256=sha256(bundle.directory / MANIFEST),
        scheme=manifest.encoder.scheme,
        decoder_scheme=manifest.decoder.scheme if manifest.decoder else "none",
        storage=manifest.encoder.storage,
        bytes=sum((bundle.directory / name).stat().st_size for name in names),
        checkpoint_sha256=manifest.source.sha256,
        tools=manifest.tools,
    )


def machine() -> dict[str, Any]:
    """Processor, its instruction sets that matter here, cores, memory, load, system."""
    from edge.runtime.engines.contract import default_threads

    name, flags = _processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": name,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": cores,  # that this process may use
        "default_threads": default_threads(),
        "memory_mb": _memory_mb(),
        "load_1min": None if load is None else round(load, 2),  # above the cores: others were working too
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python and the packages whose version can change a number."""
    return {"python": platform.python_version()} | installed(_PACKAGES)


def resident_mb() -> float | None:
    """Memory of this process that is in RAM now; None where the system does not say."""
    status = _status("VmRSS")
    if status is not None:
        return status
    try:
        import psutil
    except ImportError:
        return None
    return float(psutil.Process().memory_info().rss / _MB)


def peak_mb() -> float | None:
    """The most memory of this process that was ever in RAM; None where the system does not say.

    On Linux not ``ru_maxrss``: a child inherits its parent's across fork and exec, so it says how large the parent
    was. ``VmHWM`` belongs to the address space, which exec makes new.
    """
    status = _status("VmHWM")
    if status is not None:
        return status
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB)


def _status(field: str) -> float | None:
    """A field of /proc/self/status in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


def _processor() -> tuple[str, set[str]]:
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            return name, set(value.split())
    return name, flags


def _memory_mb() -> int | None:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _MB)
    except (AttributeError, ValueError, OSError):
        return None
