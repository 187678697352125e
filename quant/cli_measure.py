"""Options of the commands: wer and bench."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``. What they run is imported when they run."""
