"""Processes that see an older x86 CPU than the one they run on, at full speed: see mask.c."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("mask.c")

# leaf, subleaf, register and bit of CPUID, by /proc/cpuinfo's name of the flag
_BITS = {
    **{f"avx512{name}": (7, 0, "b", bit) for name, bit in dict(f=16, dq=17, ifma=21, cd=28, bw=30, vl=31).items()},
    **{f"avx512{name}": (7, 0, "c", bit) for name, bit in dict(vbmi=1, _vbmi2=6, _vnni=11, _bitalg=12).items()},
    "avx512_vpopcntdq": (7, 0, "c", 14),
    **{name: (7, 0, "d", bit) for name, bit in dict(avx512_vp2intersect=8, avx512_fp16=23).items()},
    **{name: (7, 0, "d", bit) for name, bit in dict(amx_bf16=22, amx_tile=24, amx_int8=25).items()},
    **{name: (7, 1, "a", bit) for name, bit in dict(avx_vnni=4, avx512_bf16=5, amx_fp16=21).items()},
    **{name: (7, 1, "d", bit) for name, bit in dict(avx_vnni_int8=4, avx_ne_convert=5, avx_vnni_int16=10).items()},
}
_AMX = tuple(name for name in _BITS if name.startswith("amx_"))
_AVX_VNNI = ("avx_vnni", "avx_vnni_int8", "avx_vnni_int16", "avx_ne_convert")
_AVX512 = tuple(name for name in _BITS if name.startswith("avx512"))


@dataclass(frozen=True)
class Kind:
    """An x86 CPU by what it lacks.

    ``needs``: the flag of /proc/cpuinfo it cannot do without. ``hides``: flags that it lacks.
    """

    name: str
    needs: str
    hides: tuple[str, ...]


KINDS = (
    Kind("AVX2 without VNNI (Haswell to Comet Lake, Zen 1 to 3)", "avx2", _AVX512 + _AMX + _AVX_VNNI),
    Kind("AVX512 without VNNI (Skylake-X)", "avx512bw", ("avx512_vnni", "avx512_bf16", *_AMX, *_AVX_VNNI)),
    Kind("AVX-VNNI without AVX512 (Alder Lake)", "avx_vnni", _AVX512 + _AMX),
    Kind("AVX512-VNNI without AMX (Ice Lake, Zen 4)", "avx512_vnni", _AMX),
)


def flags() -> set[str]:
    """Of this CPU, as /proc/cpuinfo names them; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def why_not(kind: Kind) -> str:
    """Why this machine cannot run programs as if it were of ``kind``; empty when it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "CPUID can be hidden on x86-64 Linux only"
    if kind.needs not in flags():
        return f"this CPU has no {kind.needs}"
    if shutil.which("gcc") is None:
        return "gcc is not installed, which makes tests/helpers/cpu_kinds/mask.c a library"
    probe = subprocess.run([sys.executable, "-c", ""], env=environment(kind), capture_output=True, text=True)
    return "" if probe.returncode == 0 else f"CPUID cannot be hidden here: {probe.stderr.strip()}"


def environment(kind: Kind) -> dict[str, str]:
    """``os.environ`` for a child process, and its children, on a CPU of ``kind``."""
    hidden: dict[tuple[int, int, str], int] = {}
    for name in kind.hides:
        leaf, subleaf, register, bit = _BITS[name]
        hidden[leaf, subleaf, register] = hidden.get((leaf, subleaf, register), 0) | 1 << bit
    text = ",".join(f"{leaf:x}:{sub:x}:{register}:{bits:x}" for (leaf, sub, register), bits in hidden.items())
    return os.environ | {"LD_PRELOAD": str(_library()), "U2EDGE_HIDE_CPUID": text}


@functools.cache
def _library() -> Path:
    out = Path(tempfile.mkdtemp(prefix="u2edge-cpu-")) / "mask.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", out, _SOURCE, "-ldl"], check=True)
    return out
