"""dynamic: int8 weights, uint8 activations whose scale is found in every call.

DynamicQuantizeLinear -> MatMulInteger, which ONNX Runtime fuses to DynamicQuantizeMatMul. OpenVINO runs it in float.
Convolutions have their weights in 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from torch import Tensor, nn

from quant.precision.plan import ActivationScale, LayerPlan
from quant.schemes.base import Graph, Layer, Scheme, fake_activation
from quant.schemes.weights import channel_quantize


class Dynamic(Scheme):
    """See the module."""

    def plan(self, path: str, convolution: bool) -> LayerPlan:
        return LayerPlan("weight8" if convolution else self.name)

    def is_float(self, convolution: bool) -> bool:
        return convolution

    def linear(self, graph: Graph, x: str, layer: Layer) -> str:
        builder = graph.builder
        q, scale = channel_quantize(layer.weight, layer.plan.weight_scale, layer.path)
        with builder.scope(""):
            x_q, x_scale, x_zero = builder.nodes("DynamicQuantizeLinear", 3, x)
            both = builder.node("Mul", x_scale, builder.constant(scale, np.float32))
        y = builder.node("MatMulInteger", x_q, builder.initializer(f"{layer.path}.weight", q.T), x_zero)
        with builder.scope(""):
            y = builder.node("Mul", builder.node("Cast", y, to=TensorProto.FLOAT), both)
            return y if layer.bias is None else builder.node("Add", y, builder.constant(layer.bias, np.float32))

    def hooks(self, path: str, module: nn.Module, plan: LayerPlan) -> list[Any]:
        return [] if isinstance(module, nn.Conv2d) else [module.register_forward_pre_hook(_before)]


def dynamic_scale(x: Tensor) -> ActivationScale | None:
    """As ONNX DynamicQuantizeLinear chooses it; None where everything is zero or nothing is there."""
    if not x.numel():
        return None
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if high == low:
        return None
    scale = (high - low) / 255
    return ActivationScale(scale, round(min(max(-low / scale, 0.0), 255.0)))


def _before(module: nn.Module, args: Any) -> Any:
    scale = dynamic_scale(args[0])
    return args if scale is None else (fake_activation(args[0], scale), *args[1:])
