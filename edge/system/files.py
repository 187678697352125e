"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, parents: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes the place of ``path`` when the ``with`` ends well.

    ``parents``: make the folder when it is absent. After an error, or an interrupt, ``path`` is what it was before.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, parents: bool = True) -> None:
    """Raises OSError; ``parents``: make the folder when it is absent."""
    with replacing(path, parents) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, parents: bool = True) -> None:
    """As UTF-8, with the line ends that ``text`` has; raises OSError. ``parents``: as :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"), parents)


def write_json(path: Path, data: Any, indent: int | None = 1) -> None:
    """As UTF-8 with a line end; raises OSError, and ValueError for NaN or infinity, which are no JSON."""
    write_text(path, json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def umask() -> int:
    """Of this process: permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
