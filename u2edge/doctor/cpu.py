"""Processor, the cores this process may use, instruction sets, memory."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from u2edge.doctor.limits import cpu_quota, memory_limit
from u2edge.doctor.section import Problem, Section, plural

# /proc/cpuinfo's name (x86, Arm) -> ours
_FLAGS = {
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}
# numpy's names and macOS's, where there is no /proc/cpuinfo
_NUMPY = {"AVX2": "avx2", "AVX512F": "avx512f", "AVX512VNNI": "avx512_vnni", "NEON": "neon", "ASIMDDP": "dotprod"}
_MACOS = {"hw.optional.arm.FEAT_DotProd": "dotprod", "hw.optional.arm.FEAT_I8MM": "i8mm"}
VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")
_MB = 2**20


@dataclass(frozen=True)
class Cpu:
    """A processor as this process may use it."""

    model: str
    architecture: str  # x86_64, aarch64, ...
    physical: int | None  # cores of the machine
    logical: int
    usable: int  # logical cores that affinity allows
    usable_physical: int
    quota: float | None  # cores' worth of time that a container allows; None: no limit
    isa: tuple[str, ...]
    governor: str = ""  # the frequency governor, with its driver
    memory_mb: int | None = None  # of the machine, or the container's limit
    available_mb: int | None = None

    @property
    def x86(self) -> bool:
        return self.architecture.lower() in ("x86_64", "amd64", "i686", "x86")

    @property
    def vnni(self) -> bool:
        """Whether there are instructions for 8-bit dot products with 32-bit sums: speed; int8 is as right without."""
        return any(name in self.isa for name in VNNI)


def read_cpu() -> Cpu:
    """The processor of this machine; what cannot be known is None or empty."""
    model, flags = _cpuinfo()
    if sys.platform == "darwin":
        model = _sysctl("machdep.cpu.brand_string") or model
    if not flags:
        flags = _other_flags()
    logical = os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(logical))
    total, available = _memory()
    return Cpu(
        model=model or platform.processor() or "unknown",
        architecture=platform.machine() or "unknown",
        physical=_physical(range(logical)),
        logical=logical,
        usable=len(allowed),
        usable_physical=_physical(allowed) or len(allowed),
        quota=cpu_quota(),
        isa=tuple(name for raw, name in _FLAGS.items() if raw in flags or name in flags),
        governor=_governor(),
        memory_mb=total,
        available_mb=available,
    )


def examine(cpu: Cpu) -> Section:
    """What the processor means for recognition."""
    problems = []
    if min(cpu.usable, cpu.quota or cpu.usable) <= 1:
        where = "this process may use one core only" if cpu.logical > 1 else "the machine has one core"
        fix = "use chunks of 640 ms or more (--chunk-ms)"
        if cpu.logical > 1:
            fix = f"let it use more of the {cpu.logical} (taskset, docker --cpus, cgroup), or {fix}"
        problems.append(Problem("warning", f"{where}: microphone, features and model share it", fix))
    elif cpu.quota is not None and cpu.quota < cpu.usable_physical:
        text = (
            f"a container limits this process to {cpu.quota:g} of {cpu.usable} cores; more threads would be throttled"
        )
        problems.append(Problem("warning", text, f"use --threads {max(1, int(cpu.quota))}, or raise the limit"))
    if _slow_governor(cpu.governor):
        problems.append(
            Problem(
                "warning",
                f"the frequency governor is {cpu.governor.split()[0]}: chunks take longer than they must",
                "sudo cpupower frequency-set -g schedutil (or the performance profile of your desktop)",
            )
        )
    if cpu.x86 and cpu.isa and "avx2" not in cpu.isa:
        text = "the processor has no AVX2: engines fall back to kernels several times slower"
        problems.append(Problem("warning", text, "use a small bundle, or another machine"))
    physical = f"{plural(cpu.physical, 'core')}, " if cpu.physical else ""
    usable = f"this process may use {cpu.usable}"
    if cpu.quota is not None:
        usable += f", for {cpu.quota:g} cores' worth of time"
    lines = [f"{cpu.model} ({cpu.architecture})", f"{physical}{plural(cpu.logical, 'thread')}; {usable}"]
    lines.append(
        f"instruction sets: {' '.join(cpu.isa) or 'unknown'}" + ("" if cpu.vnni or not cpu.x86 else "; no VNNI")
    )
    if cpu.memory_mb:
        free = f", {cpu.available_mb / 1024:.1f} GB available" if cpu.available_mb is not None else ""
        lines.append(f"memory: {cpu.memory_mb / 1024:.1f} GB{free}")
    return Section("processor", {**asdict(cpu), "isa": list(cpu.isa), "vnni": cpu.vnni}, lines, problems)


def _cpuinfo() -> tuple[str, set[str]]:
    """Model name and flags from /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", set()
    name, flags = "", set[str]()
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key.lower() in ("model name", "hardware") and not name:
            name = value
        elif key.lower() in ("flags", "features") and not flags:
            flags = set(value.split())
    if not name:  # Arm boards tell their name elsewhere
        with contextlib.suppress(OSError):
            name = Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    return name, flags


def _other_flags() -> set[str]:
    """Flags as numpy's own detection and macOS know them."""
    found = {name for key, name in _MACOS.items() if sys.platform == "darwin" and _sysctl(key) == "1"}
    try:  # private, so it may go: then the instruction sets are unknown
        features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return found
    return found | {name for key, name in _NUMPY.items() if features.get(key)}


def _physical(cpus: range | list[int]) -> int | None:
    if sys.platform == "darwin":
        value = _sysctl("hw.physicalcpu")
        return int(value) if value.isdigit() else None
    cores = set()
    for cpu in cpus:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            continue
        cores.add(siblings)
    return len(cores) or None


def _memory() -> tuple[int | None, int | None]:
    """Total and available MB; a container's limit counts as total."""
    total = available = None
    with contextlib.suppress(OSError, ValueError):
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (int(rows[key].split()[0]) // 1024 for key in ("MemTotal", "MemAvailable"))
    if total is None and sys.platform == "darwin" and _sysctl("hw.memsize").isdigit():
        total = int(_sysctl("hw.memsize")) // _MB
    if total is None:
        with contextlib.suppress(ImportError):
            import psutil

            memory = psutil.virtual_memory()
            total, available = memory.total // _MB, memory.available // _MB
    limit = memory_limit()
    if limit is not None and (total is None or limit // _MB < total):
        total = limit // _MB
        available = total if available is None else min(available, total)
    return total, available


def _governor() -> str:
    folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    values = []
    for name in ("scaling_governor", "scaling_driver", "energy_performance_preference"):
        with contextlib.suppress(OSError):
            values.append((folder / name).read_text().strip())
    return " ".join(values)


def _slow_governor(governor: str) -> bool:
    """Intel's and AMD's own drivers call their normal governor powersave; there the preference tells."""
    name, driver, *preference = [*governor.split(), "", ""]
    if name != "powersave":
        return False
    return preference[:1] == ["power"] if driver.startswith(("intel_pstate", "amd-pstate", "amd_pstate")) else True


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
