"""The conformer's convolution module with its cache. Source: ``wenet/models/transformer/convolution.py``."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from edge.export.graph import Float32, GraphBuilder
from edge.export.layers import activation, layer_norm


@dataclass(frozen=True)
class ConvolutionSpec:
    """Sizes of one module; ``context`` = kernel - 1 when causal, else 0 (symmetric padding)."""

    dim: int
    kernel: int
    context: int
    bias: bool
    activation: str
    norm: str  # layer_norm | batch_norm
    eps: float


def convolution(
    graph: GraphBuilder, x: str, path: str, spec: ConvolutionSpec, cache: str | None
) -> tuple[str, str | None]:
    """Pointwise, gated linear unit, depthwise, norm, activation, pointwise.

    Args:
        x: ``(C, dim)``.
        cache: ``(context, dim)``, the inputs before this chunk (before the first pointwise layer,
            zeros at the start of a stream); None when ``context`` is 0.

    Returns:
        ``(C, dim)`` and the next cache, shaped like ``cache``.
    """
    if cache is not None:
        x = graph.concat([cache, x], axis=0)
        cache = graph.node("Slice", x, graph.ints(-spec.context), graph.ints(sys.maxsize), graph.ints(0))
    x = graph.linear(x, f"{path}.pointwise_conv1", spec.dim, 2 * spec.dim, spec.bias)
    value, gate = graph.split(x, (spec.dim, spec.dim), axis=1)
    x = graph.node("Mul", value, graph.node("Sigmoid", gate))
    x = _depthwise(graph, x, f"{path}.depthwise_conv", spec, path)
    if spec.norm == "layer_norm":
        x = layer_norm(graph, x, f"{path}.norm", spec.dim, spec.eps)
    x = activation(graph, x, spec.activation)
    return graph.linear(x, f"{path}.pointwise_conv2", spec.dim, spec.dim, spec.bias), cache


def _depthwise(graph: GraphBuilder, x: str, name: str, spec: ConvolutionSpec, path: str) -> str:
    """Depthwise convolution over the rows of ``x``, with batch norm folded into it.

    Written as a 2-D convolution of one row of frames: ONNX Runtime has a blocked depthwise kernel
    for 2-D only, 3 to 7 times faster here than its 1-D convolution (512 channels, kernel 15).
    """
    weight = graph.array(f"{name}.weight", spec.dim, 1, spec.kernel)
    bias: Float32 | None = graph.array(f"{name}.bias", spec.dim) if spec.bias else None
    folded = spec.norm == "batch_norm"
    if folded:
        scale, shift = _batch_norm(graph, f"{path}.norm", spec)
        weight = weight * scale[:, None, None]
        bias = shift if bias is None else bias * scale + shift
    pad = 0 if spec.context else (spec.kernel - 1) // 2
    label = f"{name}.folded" if folded else name
    inputs = [graph.initializer(f"{label}.weight", weight[:, :, None, :])]
    if bias is not None:
        inputs.append(graph.initializer(f"{label}.bias", bias))
    x = graph.transpose(graph.unsqueeze(x, 0, 1), 0, 3, 1, 2)  # (1, dim, 1, frames)
    x = graph.node("Conv", x, *inputs, group=spec.dim, kernel_shape=(1, spec.kernel), pads=(0, pad, 0, pad))
    return graph.squeeze(graph.transpose(x, 0, 2, 3, 1), 0, 1)


def _batch_norm(graph: GraphBuilder, path: str, spec: ConvolutionSpec) -> tuple[Float32, Float32]:
    """Batch norm at inference as ``x * scale + shift``, each ``(dim,)``."""
    weight, bias, mean, var = (
        graph.array(f"{path}.{name}", spec.dim) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + np.float32(spec.eps))
    return scale, bias - mean * scale
