"""Where a window could be shown; the terminal demo needs none of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from edge.system.versions import version
from u2edge.doctor.section import Problem, Section


def examine(environment: Mapping[str, str] = os.environ) -> Section:
    """DISPLAY or WAYLAND_DISPLAY, and PySide6 with the version that is known to crash."""
    found = {name: bool(environment.get(name)) for name in ("DISPLAY", "WAYLAND_DISPLAY")}
    display = any(found.values()) or sys.platform in ("darwin", "win32")
    pyside = next((v for name in ("PySide6-Essentials", "PySide6") if (v := version(name))), "")
    problems = []
    if pyside.startswith("6.12.0") and sys.version_info < (3, 12):
        text = f"PySide6 {pyside} crashes on Python {sys.version_info[0]}.{sys.version_info[1]} after seconds"
        problems.append(Problem("warning", text, "pip install 'PySide6-Essentials==6.11.3'"))
    if not display:
        text = "no display (neither DISPLAY nor WAYLAND_DISPLAY is set): no window can open"
        problems.append(Problem("note", text, "the terminal needs none: u2edge transcribe, u2edge demo"))
    where = ", ".join(name for name, there in found.items() if there) or ("yes" if display else "none")
    lines = [f"{where}; PySide6 {pyside or 'not installed'}"]
    return Section("display", {"display": display, **found, "pyside6": pyside}, lines, problems)
