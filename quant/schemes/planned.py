"""A plan of precisions as ONNX nodes: each layer in the form of its scheme."""

from __future__ import annotations

from edge.export.graph import GraphBuilder
from quant.precision.plan import LayerPlan, QuantizationPlan
from quant.schemes.base import FLOAT, Float32, Graph, Layer
from quant.schemes.registry import scheme

_FLOAT = LayerPlan("fp32")


class PlannedScheme:
    """Expands every layer as ``plan`` says; float32 for a layer that it does not list. An
    ``edge.export.linear.LinearScheme``; use one object per graph.

    Raises (from ``linear`` and ``conv2d``):
        QuantizationError: a layer planned static without an input scale, or weight scales that do not fit.
    """

    def __init__(self, plan: QuantizationPlan) -> None:
        self.plan = plan
        self._graph: Graph | None = None

    def linear(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32 | None) -> str:
        layer = self.plan.layers.get(path, _FLOAT)
        if layer.precision == "fp32":
            return FLOAT.linear(graph, x, path, weight, bias)
        return scheme(layer.precision).linear(self._of(graph), x, Layer(path, layer, weight, bias))

    def conv2d(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32, stride: int) -> str:
        layer = self.plan.layers.get(path, _FLOAT)
        if layer.precision == "fp32":
            return FLOAT.conv2d(graph, x, path, weight, bias, stride)
        return scheme(layer.precision).conv2d(self._of(graph), x, Layer(path, layer, weight, bias, stride))

    def _of(self, builder: GraphBuilder) -> Graph:
        if self._graph is None:
            self._graph = Graph(builder)
        assert self._graph.builder is builder, "one object per graph"
        return self._graph
