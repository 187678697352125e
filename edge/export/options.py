"""What an exported graph may choose, and the one error the exporter raises."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from edge.runtime.errors import EdgeError


class ExportError(EdgeError, ValueError):
    """Weights that do not fit the configuration, or a graph that cannot be written."""


_CHOICES = {
    "storage": ("fp32", "fp16"),
}


@dataclass(frozen=True)
class ExportOptions:
    """Choices that change how a graph computes, never what it computes.

    Raises:
        ExportError: a value outside the choices of a field.
    """

    storage: Literal["fp32", "fp16"] = "fp32"
    """fp16 halves the file: large weights are stored as float16 and cast back when the graph is
    loaded. Arithmetic stays float32."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value not in _CHOICES[field.name]:
                raise ExportError(
                    f"ExportOptions.{field.name}: expected one of {', '.join(_CHOICES[field.name])}, found {value!r}"
                )


DEFAULT_OPTIONS = ExportOptions()
