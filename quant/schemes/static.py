"""static: int8 weights, uint8 activations with a scale from calibration.

QuantizeLinear -> DequantizeLinear around a Gemm or Conv whose weight is int8 and whose bias is int32. ONNX Runtime
fuses that to QGemm (float output) and QLinearConv, OpenVINO to its int8 FullyConnected and Convolution. Both want the
zero points of activations and weights spelled out, also where they are 0.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edge.export.graph import GraphBuilder
from quant.precision.plan import ActivationScale, LayerPlan, QuantizationError
from quant.schemes.base import LEAST_SCALE, Graph, Layer, Scheme, fake_activation, input_scale, weight_of, weight_value
from quant.schemes.weights import channel_quantize, quantize_bias


class Static(Scheme):
    """See the module."""

    def linear(self, graph: Graph, x: str, layer: Layer) -> str:
        # The uint8 output of a convolution is read as it is, with the scale it was written with.
        scale = graph.written.get(graph.builder.source(x)) or input_scale(layer)
        weight, bias = _integers(graph.builder, layer, scale)
        biases = [] if bias is None else [bias]
        return graph.builder.node("Gemm", _requantize(graph.builder, x, scale), weight, *biases, transB=1)

    def conv2d(self, graph: Graph, x: str, layer: Layer) -> str:
        """int8 where the plan has an output scale, else float32."""
        if layer.plan.output is None:
            return super().conv2d(graph, x, layer)
        builder, known = graph.builder, graph.written.get(x)
        scale = known or input_scale(layer)
        weight, bias = _integers(builder, layer, scale)
        assert bias is not None
        x = x if known else _requantize(builder, x, scale)
        strides = (layer.stride, layer.stride)
        y = builder.node("Conv", x, weight, bias, kernel_shape=layer.weight.shape[2:], strides=strides)
        output = ActivationScale(layer.plan.output.high / 255, 0)  # zero point 0: clipping at 0 is the ReLU
        y = _requantize(builder, y, output)
        graph.written[y] = output
        return y

    def fake_weight(self, path: str, module: nn.Module, plan: LayerPlan) -> Tensor:
        weight, bias, x_scale = weight_of(module), None, None
        if module.bias is not None and plan.input is not None:
            bias, x_scale = cast(Tensor, module.bias).detach().numpy(), np.float32(plan.input.scale)
        q, scale = channel_quantize(weight, plan.weight_scale, path, bias, x_scale)
        return torch.from_numpy(q * scale.reshape(-1, *(1,) * (weight.ndim - 1)))

    def hooks(self, path: str, module: nn.Module, plan: LayerPlan) -> list[Any]:
        if plan.input is None or (isinstance(module, nn.Conv2d) and plan.output is None):
            raise QuantizationError(f"{path}: expected activation scales for a static layer, found none")
        hooks: list[Any] = [module.register_forward_pre_hook(_before(plan.input))]
        if plan.output is not None:
            hooks.append(module.register_forward_hook(_after(plan.output)))
        return hooks


def _integers(graph: GraphBuilder, layer: Layer, x: ActivationScale) -> tuple[str, str | None]:
    """Weight and bias read through DequantizeLinear: int8 per output channel, and int32 per x.scale * scale."""
    x_scale = _float32(x)
    q, scale = channel_quantize(layer.weight, layer.plan.weight_scale, layer.path, layer.bias, x_scale)
    with graph.scope(""):
        scales = graph.constant(scale, np.float32)
        value = weight_value(graph, layer.path, q, scales)
        if layer.bias is None:
            return value, None
        integers = graph.constant(quantize_bias(layer.bias, scale, x_scale), np.int32)
        # The product is folded when the graph is loaded; stored, it would be 4 bytes more per channel.
        product = graph.node("Mul", scales, graph.constant(x_scale, np.float32))
        return value, graph.node("DequantizeLinear", integers, product, axis=0)


def _float32(scale: ActivationScale) -> np.float32:
    return np.float32(max(scale.scale, LEAST_SCALE))


def _requantize(graph: GraphBuilder, x: str, scale: ActivationScale) -> str:
    """``x`` rounded to uint8, as float32. Layers that read the same ``x`` at the same scale share the nodes."""
    with graph.scope(""):
        how = graph.constant(_float32(scale), np.float32), graph.constant(scale.zero_point, np.uint8)
        return graph.node("DequantizeLinear", graph.node("QuantizeLinear", x, *how), *how)


def _before(scale: ActivationScale) -> Any:
    return lambda module, args: (fake_activation(args[0], scale), *args[1:])


def _after(scale: ActivationScale) -> Any:
    # The scale is that of the output after its ReLU, whose zero is the zero point: saturating is the ReLU.
    return lambda module, args, y: fake_activation(y, scale)
