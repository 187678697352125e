"""The one place that decides how linear layers and subsampling convolutions expand into ONNX nodes.

A quantization scheme is an object with this protocol: given the module path of a layer it emits
int8 nodes (QuantizeLinear, MatMulInteger, ...) or falls back to ``FloatScheme``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edge.export.graph import GraphBuilder

Float32 = npt.NDArray[np.float32]


class LinearScheme(Protocol):
    """Expands the layers that hold nearly all weights. Equal nodes are emitted once by the graph, so
    a scheme may quantize ``x`` again for every layer that reads it."""

    def linear(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32 | None) -> str:
        """Emit ``x @ weight.T + bias``.

        Args:
            graph: where nodes and initializers go.
            x: value of shape ``(rows, in_features)``, float32; an expert may see 0 rows.
            path: WeNet's module path, e.g. ``encoder.encoders.0.feed_forward.experts.3.w_1``.
            weight: ``(out_features, in_features)``, as in the checkpoint.
            bias: ``(out_features,)`` or None.

        Returns:
            Name of a float32 value of shape ``(rows, out_features)``.
        """
        ...

    def conv2d(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32, stride: int) -> str:
        """Emit a subsampling convolution without padding, and the ReLU after it.

        The second one costs as much as two blocks of the same width, so it matters to an int8 model. The ReLU
        belongs to it because an unsigned int8 output with zero point 0 is one.

        Args:
            graph: where nodes and initializers go.
            x: value of shape ``(1, in_channels, height, width)``, float32.
            path: WeNet's module path, e.g. ``encoder.embed.conv.2``.
            weight: ``(out_channels, in_channels, kernel, kernel)``.
            bias: ``(out_channels,)``.
            stride: in both directions.

        Returns:
            Name of a float32 value of shape ``(1, out_channels, height', width')``, not negative.
        """
        ...


class FloatScheme:
    """Float32 arithmetic.

    A linear layer is a Gemm that reads the weight as the checkpoint lays it out. ``transB`` costs
    nothing, as ONNX Runtime packs constant weights when it loads the graph, and leaves initializers
    that compare equal to the checkpoint. Gemm wants 2-D operands, which is why the graphs carry
    ``(rows, dim)`` activations throughout.
    """

    def linear(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32 | None) -> str:
        inputs = [x, graph.initializer(f"{path}.weight", weight)]
        if bias is not None:
            inputs.append(graph.initializer(f"{path}.bias", bias))
        return graph.node("Gemm", *inputs, transB=1)

    def conv2d(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32, stride: int) -> str:
        kernel, offset = graph.initializer(f"{path}.weight", weight), graph.initializer(f"{path}.bias", bias)
        return relu_convolution(graph, x, kernel, offset, weight.shape[2:], stride)


def relu_convolution(graph: GraphBuilder, x: str, weight: str, bias: str, kernel: tuple[int, ...], stride: int) -> str:
    """The float32 convolution of ``LinearScheme.conv2d`` with a weight and bias that are already in the graph."""
    y = graph.node("Conv", x, weight, bias, kernel_shape=kernel, strides=(stride, stride))
    return graph.node("Relu", y)
