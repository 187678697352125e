"""Weights alone in 8 or 4 bits, in blocks of 32 that share a scale: MatMulNBits (``com.microsoft``), also read by
OpenVINO. What ``weight8`` and ``weight4`` have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from edge.export.linear import relu_convolution
from quant.precision.plan import LayerPlan
from quant.schemes.base import Graph, Layer, Scheme, weight_of
from quant.schemes.weights import BLOCK, block_quantize, channel_quantize

_ACCURACY_LEVEL = 4
"""Of MatMulNBits: its kernel rounds activations to int8 in blocks of its own. Relative error 0.006 against 0.004
with float activations, and 8 to 25 times faster in 8 bits, where the float kernel expands the weight in every call."""


class BlockWise(Scheme):
    """Linear layers in blocks; convolutions in 8 bits per output channel."""

    bits: ClassVar[int]

    def linear(self, graph: Graph, x: str, layer: Layer) -> str:
        builder = graph.builder
        q, scale = block_quantize(layer.weight, self.bits)
        with builder.scope(""):
            scales = builder.constant(scale, scale.dtype)
            scales = builder.node("Cast", scales, to=TensorProto.FLOAT) if scale.dtype == np.float16 else scales
        inputs = [x, builder.initializer(f"{layer.path}.weight", q), scales]
        if layer.bias is not None:
            # Zero points (in the middle of the range) and group index are left out.
            inputs += ["", "", builder.constant(layer.bias, np.float32)]
        return builder.nodes(
            "MatMulNBits",
            1,
            *inputs,
            domain="com.microsoft",
            K=layer.weight.shape[1],
            N=layer.weight.shape[0],
            bits=self.bits,
            block_size=BLOCK,
            accuracy_level=_ACCURACY_LEVEL,
        )[0]

    def conv2d(self, graph: Graph, x: str, layer: Layer) -> str:
        builder = graph.builder
        q, scales = channel_quantize(layer.weight, layer.plan.weight_scale, layer.path)
        with builder.scope(""):
            # Cast and Mul rather than DequantizeLinear, which ONNX Runtime does not fold: it would run per call.
            integers = builder.node("Cast", builder.initializer(f"{layer.path}.weight", q), to=TensorProto.FLOAT)
            value = builder.node("Mul", integers, builder.constant(scales.reshape(-1, 1, 1, 1), np.float32))
        assert layer.bias is not None
        bias = builder.initializer(f"{layer.path}.bias", layer.bias)
        return relu_convolution(builder, x, value, bias, layer.weight.shape[2:], layer.stride)

    def fake_weight(self, path: str, module: nn.Module, plan: LayerPlan) -> Tensor:
        if isinstance(module, nn.Conv2d):
            return super().fake_weight(path, module, plan)
        weight = weight_of(module)
        rows = weight.reshape(len(weight), -1)
        return torch.from_numpy(block_values(rows, self.bits).reshape(weight.shape))

    def hooks(self, path: str, module: nn.Module, plan: LayerPlan) -> list[Any]:
        return [] if isinstance(module, nn.Conv2d) else [module.register_forward_pre_hook(_before)]


def block_values(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """``weight (out, in)`` after ``quant.schemes.weights.block_quantize``."""
    q, scale = block_quantize(weight, bits)
    if bits == 4:
        q = np.stack([q & 15, q >> 4], axis=-1).reshape(*q.shape[:2], BLOCK)
    values = (q.astype(np.float32) - (1 << (bits - 1))) * scale[..., None]
    return np.ascontiguousarray(values.reshape(len(weight), -1)[:, : weight.shape[1]])


def _before(module: nn.Module, args: Any) -> Any:
    """ONNX Runtime's kernel of block-wise weights rounds the activations to int8 per row and block."""
    x = args[0]
    axis = 1 if isinstance(module, nn.Conv1d) else -1  # of the features
    rows = x.movedim(axis, -1)
    blocks = nn.functional.pad(rows, (0, -rows.size(-1) % BLOCK)).unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    values = torch.where(scale > 0, torch.round(blocks / scale) * scale, torch.zeros_like(blocks))
    return (values.flatten(-2)[..., : rows.size(-1)].movedim(-1, axis), *args[1:])
