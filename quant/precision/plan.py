"""What becomes of every layer: the whole outcome of calibration and tuning, before a graph is written."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.runtime.errors import EdgeError

Precision = str
"""Name of a scheme (``quant.schemes.registry``), or fp32: left alone."""


class QuantizationError(EdgeError, ValueError):
    """A layer that cannot be quantized as asked."""


@dataclass(frozen=True)
class ActivationScale:
    """value = (q - zero_point) * scale with q in 0..255.

    Raises:
        QuantizationError: a scale that is not a positive finite number, or a zero point outside 0..255.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0 and 0 <= self.zero_point <= 255):
            raise QuantizationError(
                f"expected a positive scale and a zero point of 0..255, found {self.scale!r}, {self.zero_point!r}"
            )

    @property
    def low(self) -> float:
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        return (255 - self.zero_point) * self.scale


@dataclass(frozen=True)
class LayerPlan:
    """One linear layer or convolution.

    ``input`` is needed for static; ``output`` too for a static convolution (after its ReLU). ``weight_scale
    (out_features,)`` float32 comes from the weight observer; None: largest magnitude / 127 per output channel.
    ``why`` says what made this layer differ from the scheme, for the report.
    """

    precision: Precision
    input: ActivationScale | None = None
    output: ActivationScale | None = None
    weight_scale: NDArray[np.float32] | None = None
    borrowed: bool = False  # the scale of an expert that calibration saw too rarely
    why: str = ""


@dataclass(frozen=True)
class QuantizationPlan:
    """``layers`` by WeNet's module path; a layer that is not listed stays fp32."""

    scheme: str  # static, static16, dynamic, weight8, weight4, mixed
    layers: dict[str, LayerPlan] = field(default_factory=dict)

    def fall_back(self, paths: set[str], precision: Precision, why: str) -> QuantizationPlan:
        """The plan with the layers at ``paths``, or below one of them, in ``precision``."""
        layers = {
            name: dataclasses.replace(layer, precision=precision, why=why) if covers(paths, name) else layer
            for name, layer in self.layers.items()
        }
        return dataclasses.replace(self, layers=layers)

    def counts(self) -> dict[str, int]:
        """Layers by precision."""
        return dict(Counter(layer.precision for layer in self.layers.values()))


def covers(paths: set[str], name: str) -> bool:
    """Whether ``name`` is one of ``paths`` or below one."""
    return any(name == path or name.startswith(path + ".") for path in paths)
