"""What ``convert`` needs to know to write a quantized bundle; how numbers shrink is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge.export.linear import LinearScheme
from edge.runtime.bundle import Bundle


@dataclass(frozen=True)
class Quantization:
    """How the layers of both graphs are written, and what the manifest says about it."""

    name: str  # GraphInfo.scheme of a graph that has a scheme
    encoder: LinearScheme | None = None  # None: float32
    decoder: LinearScheme | None = None
    calibration: dict[str, Any] = field(default_factory=dict)  # Manifest.calibration
    check: Callable[[Bundle], None] = lambda bundle: None
    """Called with the finished bundle before it appears; an error it raises leaves nothing behind."""
