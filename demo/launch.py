"""Window or terminal? The window where there is one to show it, else the terminal and what the window lacks."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from demo.settings import Settings
from demo.window import display
from edge.system.assets import default_bundle

_M_ARENA_MAX = -8  # of malloc.h
_PACKAGES = ("PySide6", "pyqtgraph")


def run(
    settings: Settings,
    files: list[Path],
    microphone: str | None,
    record: Path | None,
    tui: bool,
    given: Collection[str] | None = None,
    fresh: bool = False,
) -> int:
    """Show the demo.

    Args:
        settings: bundles, engine and decoding.
        files: to play instead of the microphone.
        microphone: by name or number; None: the system's; "none": play the samples.
        record: folder for WAV and transcripts; None: do not record.
        tui: the terminal, also where a window could be shown.
        given: fields of ``settings`` that the user asked for, which the window does not replace by those of the last
            time. None: the ones that differ from their defaults.
        fresh: the window forgets what it remembered.

    Returns:
        The exit code.

    Raises:
        EdgeError: the bundle or an option is refused.
    """
    one_heap()
    missing = "" if tui else missing_for_window()
    if not tui and not missing:
        try:
            window = _window()
            # Qt ends the process, without an exception, when it lacks a library for this display: try that elsewhere.
            missing = display.problem()
        except ImportError as error:  # Qt is there, a library of the system is not
            missing = f"{error}; type: sudo apt install {display.PACKAGES}"
        if not missing:
            asked = _differing(settings) if given is None else given
            code: int = window.run(settings, files, microphone, record, asked, fresh)
            return code
    if missing:
        print(f"no window: {missing}", flush=True)
    from demo import terminal

    return terminal.run(settings, files, microphone, record)


def _window() -> ModuleType:
    """Imported when it is to be shown, as it needs Qt; raises ImportError."""
    from demo.window import app

    return app


def _differing(settings: Settings) -> set[str]:
    default = Settings(default_bundle())
    names = [field.name for field in dataclasses.fields(settings)]
    return {name for name in names if getattr(settings, name) != getattr(default, name)}


def one_heap() -> None:
    """Let all threads share one heap, where the C library is glibc.

    It gives each thread a heap of its own, and those of threads that take and free big blocks grow: an hour of audio
    cost 1.7 % more memory with them and 0.5 % with one. Call before there are threads.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def missing_for_window() -> str:
    """What to do before a window can be shown; empty when it can. Does not import Qt."""
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed; type: pip install 'u2edge[window]'"
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set); over SSH: ssh -X"
    return ""
