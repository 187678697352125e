"""The model and recordings that come with u2edge: in a checkout under ``models/``, in a wheel inside this package."""

from __future__ import annotations

import contextlib
from pathlib import Path

_EDGE = Path(__file__).resolve().parents[1]
_PACKAGED = _EDGE / "assets"  # filled when a wheel is built: pyproject.toml, force-include
_MODELS = _EDGE.parent / "models"


def default_bundle() -> Path:
    """The bundle of who names none: a checkout's, stored in fp16, else the int8 one of the wheel."""
    if (_PACKAGED / "reference-int8").is_dir():
        return _PACKAGED / "reference-int8"
    return _short(_MODELS / "reference-bundle")


def samples() -> Path:
    """The folder of sample recordings: spoken digits, 16 kHz FLAC."""
    return _PACKAGED / "samples" if (_PACKAGED / "samples").is_dir() else _short(_MODELS / "reference" / "samples")


def sample_files() -> list[Path]:
    """The sample recordings by name; none where they were removed."""
    return sorted(samples().glob("*.flac"))


def _short(path: Path) -> Path:
    """As one would type it here: relative to the working directory where it lies below that."""
    with contextlib.suppress(ValueError, OSError):  # OSError: the working directory was removed
        return path.relative_to(Path.cwd())
    return path
