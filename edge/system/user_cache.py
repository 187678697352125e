"""Where results that can be computed again are kept: compiled graphs, the choice of an engine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """The folder ``u2edge/<name>`` of the user's cache, made if it is absent.

    ``$XDG_CACHE_HOME``, else ``~/.cache`` (``%LOCALAPPDATA%`` on Windows).

    Returns:
        The folder, or None when there is none that can be written to.
    """
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    try:
        # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
        root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
        folder = root / "u2edge" / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # os.access() says yes on read-only and full file systems
            pass
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return folder
