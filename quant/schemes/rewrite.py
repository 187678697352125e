"""A plan of precisions as ONNX nodes: the form of each layer that engines run as integer kernels.

static: QuantizeLinear -> DequantizeLinear around a Gemm or Conv whose weight is int8 and whose bias is int32. ONNX
Runtime fuses that to QGemm (float output) and QLinearConv, OpenVINO to its int8 FullyConnected and Convolution. Both
want the zero points of activations and weights spelled out, also where they are 0.
static16: the same, where an activation is two integers (``_two_products``).
dynamic: DynamicQuantizeLinear -> MatMulInteger, which ONNX Runtime fuses to DynamicQuantizeMatMul. OpenVINO runs
it in float.
weight8, weight4: MatMulNBits (``com.microsoft``), also read by OpenVINO.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edge.export.graph import GraphBuilder
from edge.export.linear import FloatScheme, relu_convolution
from quant.precision.plan import ActivationScale, LayerPlan, QuantizationError, QuantizationPlan
from quant.schemes.weights import BLOCK, block_quantize, channel_quantize, quantize_bias

Float32 = NDArray[np.float32]

_FLOAT = LayerPlan("fp32")
_REMAINDER = 254.0  # steps of the remainder, which is -1/2..1/2: -127..127
_LEAST_SCALE = 2.0**-60  # of an input that never moved; its product with a weight scale is still a normal float32
_ACCURACY_LEVEL = 4
"""Of MatMulNBits: its kernel rounds activations to int8 in blocks of its own. Relative error 0.006 against 0.004
with float activations, and 8 to 25 times faster in 8 bits, where the float kernel expands the weight in every call."""


class PlannedScheme(FloatScheme):
    """Expands every layer as ``plan`` says; float32 for a layer that it does not list.

    Use one object per graph.

    Raises (from ``linear`` and ``conv2d``):
        QuantizationError: a layer planned static without an input scale, or weight scales that do not fit.
    """

    def __init__(self, plan: QuantizationPlan) -> None:
        self.plan = plan
        self._written: dict[str, ActivationScale] = {}  # values that left a convolution as uint8, and their scale

    def linear(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32 | None) -> str:
        layer = self.plan.layers.get(path, _FLOAT)
        if layer.precision == "static":
            # The uint8 output of a convolution is read as it is, with the scale it was written with.
            scale = self._written.get(graph.source(x)) or _input_scale(layer, path)
            weight_value, bias_value = self._integers(graph, path, layer, weight, bias, scale)
            biases = [] if bias_value is None else [bias_value]
            return graph.node("Gemm", _requantize(graph, x, scale), weight_value, *biases, transB=1)
        if layer.precision == "static16":
            return _two_products(graph, x, path, layer, weight, bias)
        if layer.precision == "dynamic":
            return _dynamic(graph, x, path, layer, weight, bias)
        if layer.precision in ("weight8", "weight4"):
            return _block_wise(graph, x, path, 8 if layer.precision == "weight8" else 4, weight, bias)
        return super().linear(graph, x, path, weight, bias)

    def conv2d(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32, stride: int) -> str:
        """static with an output scale: int8. weight8 and weight4: stored in 8 bits. Anything else: float32."""
        layer = self.plan.layers.get(path, _FLOAT)
        kernel = weight.shape[2:]
        if layer.precision == "static" and layer.output is not None:
            known = self._written.get(x)
            scale = known or _input_scale(layer, path)
            weight_value, bias_value = self._integers(graph, path, layer, weight, bias, scale)
            assert bias_value is not None
            x = x if known else _requantize(graph, x, scale)
            y = graph.node("Conv", x, weight_value, bias_value, kernel_shape=kernel, strides=(stride, stride))
            output = ActivationScale(layer.output.high / 255, 0)  # zero point 0: clipping at 0 is the ReLU
            y = _requantize(graph, y, output)
            self._written[y] = output
            return y
        if layer.precision in ("weight8", "weight4"):
            q, scales = channel_quantize(weight, layer.weight_scale, path)
            with graph.scope(""):
                # Cast and Mul rather than DequantizeLinear, which ONNX Runtime does not fold: it would run per call.
                integers = graph.node("Cast", graph.initializer(f"{path}.weight", q), to=TensorProto.FLOAT)
                value = graph.node("Mul", integers, graph.constant(scales.reshape(-1, 1, 1, 1), np.float32))
            return relu_convolution(graph, x, value, graph.initializer(f"{path}.bias", bias), kernel, stride)
        return super().conv2d(graph, x, path, weight, bias, stride)

    @staticmethod
    def _integers(
        graph: GraphBuilder, path: str, layer: LayerPlan, weight: Float32, bias: Float32 | None, x: ActivationScale
    ) -> tuple[str, str | None]:
        """Weight and bias read through DequantizeLinear: int8 per output channel, and int32 per x.scale * scale."""
        x_scale = _float32(x)
        q, scale = channel_quantize(weight, layer.weight_scale, path, bias, x_scale)
        with graph.scope(""):
            scales = graph.constant(scale, np.float32)
            value = _weight_value(graph, path, q, scales)
            if bias is None:
                return value, None
            integers = graph.constant(quantize_bias(bias, scale, x_scale), np.int32)
            # The product is folded when the graph is loaded; stored, it would be 4 bytes more per channel.
            product = graph.node("Mul", scales, graph.constant(x_scale, np.float32))
            return value, graph.node("DequantizeLinear", integers, product, axis=0)


def _input_scale(layer: LayerPlan, path: str) -> ActivationScale:
    if layer.input is None:
        raise QuantizationError(
            f"{path}: expected the scale of its input for static int8, found none; calibrate this layer, or plan it "
            "dynamic"
        )
    return layer.input


def _weight_value(graph: GraphBuilder, path: str, q: NDArray[np.int8], scales: str) -> str:
    """int8 weights ``q (out, ...)`` read as float32. Each layer has zero points of its own: ONNX Runtime cannot turn
    weights into uint8 for CPUs without VNNI when layers share them (edge/runtime/engines/onnxruntime_session.py)."""
    zeros = graph.initializer(f"{path}.zero_point", np.zeros(len(q), np.int8))
    return graph.node("DequantizeLinear", graph.initializer(f"{path}.weight", q), scales, zeros, axis=0)


def _float32(scale: ActivationScale) -> np.float32:
    return np.float32(max(scale.scale, _LEAST_SCALE))


def _requantize(graph: GraphBuilder, x: str, scale: ActivationScale) -> str:
    """``x`` rounded to uint8, as float32. Layers that read the same ``x`` at the same scale share the nodes."""
    with graph.scope(""):
        how = graph.constant(_float32(scale), np.float32), graph.constant(scale.zero_point, np.uint8)
        return graph.node("DequantizeLinear", graph.node("QuantizeLinear", x, *how), *how)


def _two_products(
    graph: GraphBuilder, x: str, path: str, layer: LayerPlan, weight: Float32, bias: Float32 | None
) -> str:
    """A linear layer on activations of 16 bits: x / scale is its nearest integer plus a remainder, in 254ths. Both are
    uint8 rows of one product, so that the weights are read once.

    A value in the middle of two steps may be rounded up by one engine and down by another (the sums before it have
    another order). In 8 bits that changes what all later layers see; here the remainder makes up for it.
    """
    found = _input_scale(layer, path)
    step = np.float32(max(found.zero_point, 255 - found.zero_point, 1) * max(found.scale, _LEAST_SCALE) / 127)
    q, scale = channel_quantize(weight, layer.weight_scale, path)
    with graph.scope(""):
        steps = graph.node("Mul", x, graph.constant(np.float32(1) / step, np.float32))
        high = graph.node("Round", steps)
        low = graph.node("Mul", graph.node("Sub", steps, high), graph.constant(_REMAINDER, np.float32))
        how = graph.constant(1.0, np.float32), graph.constant(128, np.uint8)
        rows = graph.node("QuantizeLinear", graph.concat([high, low], axis=0), *how)
        rows = graph.node("DequantizeLinear", rows, *how)
        value = _weight_value(graph, path, q, graph.constant(scale * step, np.float32))
    y = graph.node("Gemm", rows, value, transB=1)
    with graph.scope(""):
        high, low = graph.nodes("Split", 2, y, axis=0)
        y = graph.node("Add", high, graph.node("Mul", low, graph.constant(1 / _REMAINDER, np.float32)))
        return y if bias is None else graph.node("Add", y, graph.constant(bias, np.float32))


def _dynamic(graph: GraphBuilder, x: str, path: str, layer: LayerPlan, weight: Float32, bias: Float32 | None) -> str:
    q, scale = channel_quantize(weight, layer.weight_scale, path)
    with graph.scope(""):
        x_q, x_scale, x_zero = graph.nodes("DynamicQuantizeLinear", 3, x)
        both = graph.node("Mul", x_scale, graph.constant(scale, np.float32))
    y = graph.node("MatMulInteger", x_q, graph.initializer(f"{path}.weight", q.T), x_zero)
    with graph.scope(""):
        y = graph.node("Mul", graph.node("Cast", y, to=TensorProto.FLOAT), both)
        return y if bias is None else graph.node("Add", y, graph.constant(bias, np.float32))


def _block_wise(graph: GraphBuilder, x: str, path: str, bits: int, weight: Float32, bias: Float32 | None) -> str:
    q, scale = block_quantize(weight, bits)
    with graph.scope(""):
        scales = graph.constant(scale, scale.dtype)
        scales = graph.node("Cast", scales, to=TensorProto.FLOAT) if scale.dtype == np.float16 else scales
    inputs = [x, graph.initializer(f"{path}.weight", q), scales]
    if bias is not None:
        inputs += ["", "", graph.constant(bias, np.float32)]  # zero points (in the middle of the range), group index
    return graph.nodes(
        "MatMulNBits",
        1,
        *inputs,
        domain="com.microsoft",
        K=weight.shape[1],
        N=weight.shape[0],
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_ACCURACY_LEVEL,
    )[0]
