"""Microphones without hardware, for tests of the real capture path: PortAudio and ALSA above microphone.c.

    room = Room(tmp_path)
    desk = room.add("desk", wave, rate=48000)      # int16 (n,) or (n, channels)
    child = subprocess.Popen(..., env=room.environment())  # PortAudio reads it when sounddevice is imported
    desk.speak(); desk.unplug(); desk.replug(); desk.stall(); desk.resume()

The processes share a clock: ``time.monotonic()`` here and there can be compared.
"""

from __future__ import annotations

import ctypes.util
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from places import ROOT

SOURCE = Path(__file__).with_name("microphone.c")
PACKAGES = "gcc libasound2-dev libportaudio2"  # Debian's names

_PLUGGED, _UNPLUGGED, _STALLED, _BROKEN = 0, 1, 2, 3
_CONTROL = struct.Struct("=IIIIq")  # struct control in microphone.c


def missing() -> str:
    """Why there can be no virtual microphone here; empty when there can."""
    if not sys.platform.startswith("linux"):
        return "virtual microphones are ALSA devices: Linux only"
    lacking = [name for name, there in _parts() if not there]
    return f"virtual microphone: no {', '.join(lacking)}; type: sudo apt install {PACKAGES}" if lacking else ""


def _parts() -> list[tuple[str, bool]]:
    headers = shutil.which("gcc") is not None and _compiles("#include <alsa/pcm_external.h>")
    try:
        import importlib.util

        sounddevice = importlib.util.find_spec("sounddevice") is not None
    except ImportError:
        sounddevice = False
    return [
        ("gcc", shutil.which("gcc") is not None),
        ("ALSA headers", headers),
        ("PortAudio", ctypes.util.find_library("portaudio") is not None),
        ("sounddevice", sounddevice),
    ]


def _compiles(line: str) -> bool:
    include = f"#include <alsa/asoundlib.h>\n{line}\n"
    command = ["gcc", "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(command, input=include, text=True, capture_output=True, check=False).returncode == 0


def build(folder: Path) -> Path:
    """Compile the ALSA plugin into ``folder``; again only when its source is newer.

    Raises:
        RuntimeError: the compiler's own words.
    """
    library = folder / "libasound_module_pcm_testmic.so"
    if library.exists() and library.stat().st_mtime >= SOURCE.stat().st_mtime:
        return library
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{library.name}.{os.getpid()}"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-DPIC"]
    command = ["gcc", *flags, "-o", str(part), str(SOURCE), "-lasound"]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile; needs {PACKAGES}:\n{result.stderr}")
    part.replace(library)
    return library


class VirtualMicrophone:
    """One device of a :class:`Room`. Silent until ``speak``."""

    def __init__(self, folder: Path, name: str, wave: NDArray[Any] | None, rate: int, channels: int) -> None:
        self.name, self.rate, self.channels = name, rate, channels
        self._wave, control = folder / f"{name}.s16", folder / f"{name}.control"
        self.load(np.zeros((1, channels), np.int16) if wave is None else wave)
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _CONTROL.size)
        self.configuration = f'type testmic wave "{self._wave}" control "{control}" rate {rate} channels {channels}'

    def load(self, wave: NDArray[Any]) -> None:
        """Another wave, int16 (n,) or (n, channels); heard by captures that are opened later."""
        if wave.dtype != np.int16 or wave.size == 0:
            raise ValueError(f"expected int16 samples, found {wave.dtype} of shape {wave.shape}")
        if (wave.shape[1] if wave.ndim == 2 else 1) != self.channels:
            raise ValueError(f"expected {self.channels} channels, found shape {wave.shape}")
        part = self._wave.with_suffix(".part")
        part.write_bytes(np.ascontiguousarray(wave).astype("<i2").tobytes())
        part.replace(self._wave)

    def speak(self, at: float | None = None) -> float:
        """The wave begins now (or ``at``, of ``time.monotonic()``), whether anybody captures or not; returns when."""
        begins = time.monotonic() if at is None else at
        struct.pack_into("=q", self._shared, 16, max(1, round(begins * 1e9)))
        return begins

    def hush(self) -> None:
        """Silence, until it speaks again."""
        struct.pack_into("=q", self._shared, 16, 0)

    def unplug(self) -> float:
        """The device is gone: it cannot be listed or opened, and whoever has it open gets errors."""
        return self._fault(_UNPLUGGED)

    def stall(self) -> float:
        """The device stays, but its clock stands still: no more samples, no error."""
        return self._fault(_STALLED)

    def break_down(self) -> float:
        """Every call fails, and PortAudio's abort hangs until it is replugged."""
        return self._fault(_BROKEN)

    def replug(self) -> float:
        """All is well again. Returns when, like the others."""
        return self._fault(_PLUGGED)

    resume = replug

    def _fault(self, fault: int) -> float:
        struct.pack_into("=I", self._shared, 0, fault)
        return time.monotonic()

    @property
    def opened(self) -> int:
        """How often a capture was started."""
        return int(_CONTROL.unpack_from(self._shared)[1])

    @property
    def overruns(self) -> int:
        """How often a capture was too slow and the device overwrote samples."""
        return int(_CONTROL.unpack_from(self._shared)[2])


class Room:
    """Some microphones, and the environment in which they are the only ones. The first one is ``default`` too."""

    def __init__(self, folder: Path, plugin: Path | None = None) -> None:
        self._folder = folder.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._plugin = plugin or build(self._folder)
        self.microphones: dict[str, VirtualMicrophone] = {}

    def add(
        self, name: str, wave: NDArray[Any] | None = None, rate: int = 16000, channels: int = 1
    ) -> VirtualMicrophone:
        """Another device called ``name``: that is what PortAudio lists."""
        self.microphones[name] = VirtualMicrophone(self._folder, name, wave, rate, channels)
        text = f'pcm_type.testmic {{ lib "{self._plugin}" }}\n'
        # PortAudio 19.6 fails an assertion where no "default" exists.
        first = next(iter(self.microphones.values()))
        for pcm, microphone in [("default", first), *self.microphones.items()]:
            text += f"pcm.{pcm} {{ {microphone.configuration} }}\n"
        (self._folder / "alsa.conf").write_text(text)
        return self.microphones[name]

    def environment(self) -> dict[str, str]:
        """This process's environment, changed: for a child that is to hear this room."""
        paths = [str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "ALSA_CONFIG_PATH": str(self._folder / "alsa.conf"),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
        }
