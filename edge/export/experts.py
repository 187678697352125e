"""Feed-forward layers: one, or a mixture of experts with its router.

Source: ``wenet/models/transformer/positionwise_feed_forward.py`` (PositionwiseFeedForward,
MoEFFNLayer; arXiv 2305.15663). The router scores every row, the k best experts process it, and
their outputs are weighted by a softmax over those k scores.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from edge.export.graph import GraphBuilder
from edge.export.layers import activation


@dataclass(frozen=True)
class FeedForwardSpec:
    """Sizes of a feed-forward layer; ``experts`` 0 means a single one without a router."""

    dim: int
    hidden: int
    activation: str
    bias: bool
    experts: int = 0
    active: int = 0


def feed_forward(
    graph: GraphBuilder, x: str, path: str, spec: FeedForwardSpec, scale: float = 1.0
) -> tuple[str, str | None]:
    """``scale`` times the feed-forward layer at ``path``.

    Args:
        x: ``(rows, dim)``; any number of rows, 0 included.
        scale: 0.5 in macaron blocks.

    Returns:
        ``(rows, dim)`` and the rows routed to each expert, ``(experts,)`` int64; None without experts.
    """
    with graph.scope(path):
        if spec.experts:
            return _mixture(graph, x, path, spec, scale)
        y = _expert(graph, x, path, spec)
        return y if scale == 1.0 else graph.node("Mul", y, graph.scalar(scale)), None


def _mixture(graph: GraphBuilder, x: str, path: str, spec: FeedForwardSpec, scale: float) -> tuple[str, str]:
    # The router never goes through the linear scheme: small errors in it flip near-ties.
    logits = graph.node("Gemm", x, graph.weight(f"{path}.gate.weight", spec.experts, spec.dim), transB=1)
    best, chosen = graph.nodes("TopK", 2, logits, graph.ints(spec.active), axis=-1, largest=1, sorted=1)
    weights = graph.node("Softmax", best, axis=-1)  # (rows, k)
    if scale != 1.0:
        weights = graph.node("Mul", weights, graph.scalar(scale))
    flat = graph.reshape(chosen, -1)
    hits = graph.node("Equal", graph.unsqueeze(flat, 1), graph.ints(*range(spec.experts)))
    counts = graph.node("ReduceSum", graph.node("Cast", hits, to=TensorProto.INT64), graph.ints(0), keepdims=0)
    return _sorted(graph, x, path, spec, flat, counts, weights, scale), counts


def _sorted(
    graph: GraphBuilder, x: str, path: str, spec: FeedForwardSpec, flat: str, counts: str, weights: str, scale: float
) -> str:
    """Each expert on its own rows: copies of the rows are sorted by expert, cut by ``counts``, and put back.

    ``flat (rows * k,)`` holds the chosen experts. A sort is a TopK of everything, smallest first;
    ONNX breaks ties by the lower index, so the order is stable.
    """
    total = graph.node("Shape", flat)
    order = graph.nodes("TopK", 2, flat, total, axis=0, largest=0, sorted=1)[1]
    inverse = graph.nodes("TopK", 2, order, total, axis=0, largest=0, sorted=1)[1]
    rows = order if spec.active == 1 else graph.node("Div", order, graph.scalar(spec.active))
    parts = graph.nodes("Split", spec.experts, graph.node("Gather", x, rows, axis=0), counts, axis=0)
    outputs = graph.concat([_expert(graph, part, f"{path}.experts.{i}", spec) for i, part in enumerate(parts)], axis=0)
    if spec.active == 1:  # the softmax of one score is 1
        y = graph.node("Gather", outputs, inverse, axis=0)
        return y if scale == 1.0 else graph.node("Mul", y, graph.scalar(scale))
    outputs = graph.node("Gather", outputs, graph.reshape(inverse, -1, spec.active), axis=0)  # (rows, k, dim)
    return graph.squeeze(graph.node("MatMul", graph.unsqueeze(weights, 1), outputs), 1)


def _expert(graph: GraphBuilder, x: str, path: str, spec: FeedForwardSpec) -> str:
    x = graph.linear(x, f"{path}.w_1", spec.dim, spec.hidden, spec.bias)
    return graph.linear(activation(graph, x, spec.activation), f"{path}.w_2", spec.hidden, spec.dim, spec.bias)
