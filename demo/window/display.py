"""Whether Qt can open a window here. Does not import Qt: a missing library would end this process."""

from __future__ import annotations

import os
import subprocess
import sys

PACKAGES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0"
X11_PACKAGES = "libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0"
_TRY = "from PySide6.QtWidgets import QApplication; QApplication([])"


def problem(timeout_s: float = 15.0) -> str:
    """Let another process open Qt's display; what was missing, in one line, or empty.

    Qt aborts the process when its platform plugin cannot be loaded, and no exception tells. Takes half a second.
    """
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=timeout_s, env={**os.environ}
        )
    except subprocess.TimeoutExpired:
        return f"Qt did not open the display within {timeout_s:g} s"
    if tried.returncode == 0:
        return ""
    said = tried.stderr
    if "ModuleNotFoundError" in said:
        return "PySide6 is not installed; type: pip install 'u2edge[window]'"
    if "ImportError" in said:
        return f"{said.strip().splitlines()[-1]}; type: sudo apt install {PACKAGES}"
    if "could not connect to display" in said:
        return f"the display {os.environ.get('DISPLAY', '')!r} does not answer"
    if "plugin" in said:
        return f"Qt lacks libraries of X11; type: sudo apt install {X11_PACKAGES}"
    return (said.strip().splitlines() or [f"Qt ended with code {tried.returncode}"])[-1]
