"""Convolutional subsampling of the filter bank. Source: ``wenet/models/transformer/subsampling.py``."""

from __future__ import annotations

from edge.export.graph import GraphBuilder

# input_layer -> (kernel, stride) of each convolution, name of the output layer
_LAYERS: dict[str, tuple[tuple[tuple[int, int], ...], str]] = {
    "conv2d": (((3, 2), (3, 2)), "out.0"),
    "conv2d6": (((3, 2), (5, 3)), "linear"),
    "conv2d8": (((3, 2), (3, 2), (3, 2)), "linear"),
}


def subsampling(graph: GraphBuilder, x: str, path: str, input_layer: str, bins: int, dim: int) -> str:
    """Feature frames to encoder frames.

    Args:
        x: ``(1, T, bins)`` normalized filter bank; T at least the right context + 1.
        input_layer: conv2d, conv2d6 or conv2d8.

    Returns:
        ``(C, dim)`` before scaling and positions.
    """
    layers, out = _LAYERS[input_layer]
    x = graph.unsqueeze(x, 1)
    channels = 1
    for i, (kernel, stride) in enumerate(layers):
        x = graph.conv2d(x, f"{path}.conv.{2 * i}", channels, dim, kernel, stride)  # odd entries are the ReLUs
        bins = (bins - kernel) // stride + 1
        channels = dim
    x = graph.squeeze(graph.transpose(x, 0, 2, 1, 3), 0)  # (C, dim, bins)
    return graph.linear(graph.reshape(x, 0, dim * bins), f"{path}.{out}", dim * bins, dim)
