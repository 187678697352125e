"""What a quantization scheme is: how a layer is planned, written as ONNX nodes, and simulated in torch.

A new scheme is a file beside this one with a subclass of ``Scheme``, and its line in ``registry``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.export.graph import GraphBuilder
from edge.export.linear import FloatScheme
from quant.precision.plan import ActivationScale, LayerPlan, QuantizationError
from quant.schemes.weights import channel_quantize

Float32 = NDArray[np.float32]

FLOAT = FloatScheme()
LEAST_SCALE = 2.0**-60  # of an input that never moved; its product with a weight scale is still a normal float32


@dataclass(frozen=True)
class Layer:
    """A linear layer ``weight (out, in)`` or convolution ``(out, in, kernel, kernel)``, ``bias (out,)`` or None."""

    path: str
    plan: LayerPlan
    weight: Float32
    bias: Float32 | None
    stride: int = 1


@dataclass
class Graph:
    """The graph that is written, and which of its values left a convolution as uint8, with their scale."""

    builder: GraphBuilder
    written: dict[str, ActivationScale] = field(default_factory=dict)


class Scheme(ABC):
    """One way to hold a layer in fewer bits. By default convolutions stay float32."""

    def __init__(self, name: str) -> None:
        self.name = name
        """In plans, manifests and on the command line; ``registry`` gives it."""

    def plan(self, path: str, convolution: bool) -> LayerPlan:
        """Of the layer at ``path``, for a scheme that needs no calibration."""
        return LayerPlan(self.name)

    def recalibrated(self, static: LayerPlan) -> LayerPlan:
        """Of a layer that ``static`` plans for static int8, for a scheme that is calibrated."""
        return static

    @abstractmethod
    def linear(self, graph: Graph, x: str, layer: Layer) -> str:
        """Emit ``x (rows, in) @ weight.T + bias``; the name of the float32 result ``(rows, out)``.

        Raises:
            QuantizationError: a plan without the scales that this scheme needs.
        """

    def conv2d(self, graph: Graph, x: str, layer: Layer) -> str:
        """Emit a convolution without padding and the ReLU after it; as ``LinearScheme.conv2d``."""
        assert layer.bias is not None
        return FLOAT.conv2d(graph.builder, x, layer.path, layer.weight, layer.bias, layer.stride)

    def is_float(self, convolution: bool) -> bool:
        """Whether the graph computes such a layer in float32 with the weights as they are."""
        return False

    def fake_weight(self, path: str, module: nn.Module, plan: LayerPlan) -> Tensor:
        """The weight of a torch layer as the integers of the graph stand for it: int8 per output channel."""
        weight = weight_of(module)
        q, scale = channel_quantize(weight, plan.weight_scale, path)
        return torch.from_numpy(q * scale.reshape(-1, *(1,) * (weight.ndim - 1)))

    def hooks(self, path: str, module: nn.Module, plan: LayerPlan) -> list[Any]:
        """Hooks on a torch layer that round its activations as the graph does; the caller removes them.

        Raises:
            QuantizationError: a plan without the scales that this scheme needs.
        """
        return []


def input_scale(layer: Layer) -> ActivationScale:
    """Of the layer's input; raises QuantizationError where the plan has none."""
    if layer.plan.input is None:
        raise QuantizationError(
            f"{layer.path}: expected the scale of its input for static int8, found none; calibrate this layer, or plan "
            "it dynamic"
        )
    return layer.plan.input


def weight_value(graph: GraphBuilder, path: str, q: NDArray[np.int8], scales: str) -> str:
    """int8 weights ``q (out, ...)`` read as float32. Each layer has zero points of its own: ONNX Runtime cannot turn
    weights into uint8 for CPUs without VNNI when layers share them (edge/runtime/engines/onnxruntime_session.py)."""
    zeros = graph.initializer(f"{path}.zero_point", np.zeros(len(q), np.int8))
    return graph.node("DequantizeLinear", graph.initializer(f"{path}.weight", q), scales, zeros, axis=0)


def weight_of(module: nn.Module) -> Float32:
    """(out, in, ...) float32."""
    return cast(Float32, cast(Tensor, module.weight).detach().numpy())


def fake_activation(x: Tensor, scale: ActivationScale) -> Tensor:
    """Quantized to uint8 and back; any shape."""
    q = torch.round(x / scale.scale) + scale.zero_point
    return (q.clamp(0, 255) - scale.zero_point) * scale.scale
