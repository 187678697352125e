"""The command that is running, for reports that must say how each number was made."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """As one would type it; ``python -m u2edge`` is ``u2edge``."""
    program = Path(sys.argv[0])
    name = "u2edge" if program.name == "__main__.py" and program.parent.name == "u2edge" else program.name
    return shlex.join([name, *sys.argv[1:]])
