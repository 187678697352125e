"""The package that provides something, on this system."""

from __future__ import annotations

import sys
from pathlib import Path

# family -> (install command, PortAudio, Intel GPU compute runtime)
_PACKAGES = {
    "debian": ("sudo apt install", "libportaudio2", "intel-opencl-icd"),
    "ubuntu": ("sudo apt install", "libportaudio2", "intel-opencl-icd libze1 libze-intel-gpu1"),
    "fedora": ("sudo dnf install", "portaudio", "intel-compute-runtime intel-level-zero oneapi-level-zero"),
    "rhel": ("sudo dnf install", "portaudio", "intel-compute-runtime"),
    "arch": ("sudo pacman -S", "portaudio", "intel-compute-runtime level-zero-loader"),
    "suse": ("sudo zypper install", "libportaudio2", "intel-opencl"),
    "alpine": ("sudo apk add", "portaudio", "intel-compute-runtime"),
}
OS_RELEASE = Path("/etc/os-release")


def families(os_release: Path = OS_RELEASE) -> list[str]:
    """ID and ID_LIKE of the distribution, most specific first; empty when the file is missing."""
    try:
        lines = os_release.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").strip("\"'").split()]
    return [name.strip("\"'").lower() for name in names if name.strip("\"'")]


def install_portaudio(os_release: Path = OS_RELEASE, platform: str = sys.platform) -> str:
    """What to type to get PortAudio."""
    if platform == "darwin":
        return "brew install portaudio"
    if platform == "win32":
        return "pip install --force-reinstall sounddevice"  # its wheel brings PortAudio
    return _install(1, "PortAudio (libportaudio2 or portaudio)", os_release)


def install_gpu_driver(os_release: Path = OS_RELEASE) -> str:
    """What to type to get the compute driver of an Intel GPU."""
    return _install(2, "Intel's compute runtime (intel-opencl-icd, level-zero)", os_release)


def _install(column: int, otherwise: str, os_release: Path) -> str:
    for name in families(os_release):
        row = _PACKAGES.get("suse" if "suse" in name else name)
        if row:
            return f"{row[0]} {row[column]}"
    return f"install {otherwise} with your package manager"
