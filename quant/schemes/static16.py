"""static16: int8 weights, activations of 16 bits with a scale from calibration: x / scale is its nearest integer plus a
remainder, in 254ths. Both are uint8 rows of one product, so that the weights are read once.

A value in the middle of two steps may be rounded up by one engine and down by another (the sums before it have another
order). In 8 bits that changes what all later layers see; here the remainder makes up for it. Convolutions, which would
write what they compute as uint8, have their weights in 8 bits instead.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from quant.precision.plan import LayerPlan
from quant.schemes.base import LEAST_SCALE, Graph, Layer, Scheme, input_scale, weight_value
from quant.schemes.weights import channel_quantize

_REMAINDER = 254.0  # steps of the remainder, which is -1/2..1/2: -127..127


class Static16(Scheme):
    """See the module."""

    def recalibrated(self, static: LayerPlan) -> LayerPlan:
        if static.output is not None:
            return dataclasses.replace(static, precision="weight8", input=None, output=None)
        return dataclasses.replace(static, precision=self.name)

    def linear(self, graph: Graph, x: str, layer: Layer) -> str:
        builder, found = graph.builder, input_scale(layer)
        step = np.float32(max(found.zero_point, 255 - found.zero_point, 1) * max(found.scale, LEAST_SCALE) / 127)
        q, scale = channel_quantize(layer.weight, layer.plan.weight_scale, layer.path)
        with builder.scope(""):
            steps = builder.node("Mul", x, builder.constant(np.float32(1) / step, np.float32))
            high = builder.node("Round", steps)
            low = builder.node("Mul", builder.node("Sub", steps, high), builder.constant(_REMAINDER, np.float32))
            how = builder.constant(1.0, np.float32), builder.constant(128, np.uint8)
            rows = builder.node("QuantizeLinear", builder.concat([high, low], axis=0), *how)
            rows = builder.node("DequantizeLinear", rows, *how)
            value = weight_value(builder, layer.path, q, builder.constant(scale * step, np.float32))
        y = builder.node("Gemm", rows, value, transB=1)
        with builder.scope(""):
            high, low = builder.nodes("Split", 2, y, axis=0)
            y = builder.node("Add", high, builder.node("Mul", low, builder.constant(1 / _REMAINDER, np.float32)))
            return y if layer.bias is None else builder.node("Add", y, builder.constant(layer.bias, np.float32))
