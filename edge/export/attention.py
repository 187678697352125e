"""Multi-head attention: the encoder's with a key/value cache, the decoder's, and cross attention.

Source: ``wenet/models/transformer/attention.py`` (MultiHeadedAttention,
RelPositionMultiHeadedAttention, MultiHeadedCrossAttention). WeNet's relative attention has no
relative shift: the position term of key j is its absolute position's, for every query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.export.graph import GraphBuilder


@dataclass(frozen=True)
class AttentionSpec:
    """Sizes and biases of one attention layer; WeNet's ``query_bias`` also governs ``linear_out``."""

    dim: int
    heads: int
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def scale(self) -> float:
        return 1.0 / math.sqrt(self.head_dim)


def chunk_attention(
    graph: GraphBuilder, x: str, path: str, spec: AttentionSpec, cache: str, bias: str, positions: str | None
) -> tuple[str, str]:
    """Self-attention of a chunk over cached and new keys.

    Args:
        x: ``(C, dim)``.
        cache: ``(heads, L, 2 * head_dim)``, keys beside values.
        bias: added to the scores, broadcasts to ``(heads, C, L + C)``.
        positions: of the L + C keys for relative attention; None for plain attention.

    Returns:
        ``(C, dim)`` and the untrimmed cache ``(heads, L + C, 2 * head_dim)``.
    """
    heads, size = spec.heads, spec.head_dim
    query = graph.reshape(_project(graph, x, path, "q", spec), 0, heads, size)
    # Keys and values share one transpose and one cache concatenation: (C, heads, 2 * size).
    fresh = graph.concat([graph.reshape(_project(graph, x, path, name, spec), 0, heads, size) for name in "kv"], axis=2)
    next_cache = graph.concat([cache, graph.transpose(fresh, 1, 0, 2)], axis=1)
    key, value = graph.split(next_cache, (size, size), axis=2)
    key = graph.transpose(key, 0, 2, 1)
    # Scaling the queries instead of the scores touches C * dim numbers instead of heads * C * keys.
    query = graph.node("Mul", query, graph.scalar(spec.scale))
    if positions is None:
        scores = graph.node("MatMul", graph.transpose(query, 1, 0, 2), key)
    else:
        content = graph.node("MatMul", _biased(graph, query, f"{path}.pos_bias_u", spec), key)
        where = graph.node(
            "MatMul",
            _biased(graph, query, f"{path}.pos_bias_v", spec),
            _projected_positions(graph, path, spec, positions),
        )
        scores = graph.node("Add", content, where)
    context = _attend(graph, scores, value, bias)
    context = graph.reshape(graph.transpose(context, 1, 0, 2), 0, spec.dim)
    return _project(graph, context, path, "out", spec), next_cache


def causal_attention(
    graph: GraphBuilder, x: str, path: str, spec: AttentionSpec, batch: str, length: str, bias: str
) -> str:
    """The decoder's self-attention.

    Args:
        x: ``(batch * length, dim)``.
        batch, length: N and U, 1-D values.
        bias: ``(N, 1, U, U)``, hides later and padded keys.

    Returns:
        ``(batch * length, dim)``.
    """
    query, key, value = (
        graph.reshape(_project(graph, x, path, name, spec), batch, length, spec.heads, spec.head_dim) for name in "qkv"
    )
    query = graph.transpose(graph.node("Mul", query, graph.scalar(spec.scale)), 0, 2, 1, 3)
    scores = graph.node("MatMul", query, graph.transpose(key, 0, 2, 3, 1))
    context = _attend(graph, scores, graph.transpose(value, 0, 2, 1, 3), bias)
    context = graph.reshape(graph.transpose(context, 0, 2, 1, 3), -1, spec.dim)
    return _project(graph, context, path, "out", spec)


def cross_attention(graph: GraphBuilder, x: str, path: str, spec: AttentionSpec, memory: str) -> str:
    """Attention of every token of every hypothesis over the encoder output.

    All hypotheses look at the same memory, so their tokens are rows of one larger query: keys and
    values are computed once and nothing is copied per hypothesis.

    Args:
        x: ``(rows, dim)``, all tokens of all hypotheses.
        memory: ``(T, dim)``, every frame valid.

    Returns:
        ``(rows, dim)``.
    """
    query = graph.node("Mul", _project(graph, x, path, "q", spec), graph.scalar(spec.scale))
    query = graph.reshape(query, 0, spec.heads, spec.head_dim)
    key, value = (
        graph.reshape(_project(graph, memory, path, name, spec), 0, spec.heads, spec.head_dim) for name in "kv"
    )
    scores = graph.node("MatMul", graph.transpose(query, 1, 0, 2), graph.transpose(key, 1, 2, 0))
    context = _attend(graph, scores, graph.transpose(value, 1, 0, 2), None)
    context = graph.reshape(graph.transpose(context, 1, 0, 2), 0, spec.dim)
    return _project(graph, context, path, "out", spec)


def _project(graph: GraphBuilder, x: str, path: str, name: str, spec: AttentionSpec) -> str:
    bias = {"q": spec.query_bias, "k": spec.key_bias, "v": spec.value_bias, "out": spec.query_bias}[name]
    return graph.linear(x, f"{path}.linear_{name}", spec.dim, spec.dim, bias)


def _attend(graph: GraphBuilder, scores: str, value: str, bias: str | None) -> str:
    if bias is not None:
        scores = graph.node("Add", scores, bias)
    return graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)


def _biased(graph: GraphBuilder, query: str, name: str, spec: AttentionSpec) -> str:
    """``(query + name) / sqrt(head_dim)`` of queries ``(C, heads, head_dim)`` already scaled, heads first."""
    scaled = graph.array(name, spec.heads, spec.head_dim) * np.float32(spec.scale)
    return graph.transpose(graph.node("Add", query, graph.constant(scaled, np.float32)), 1, 0, 2)


def _projected_positions(graph: GraphBuilder, path: str, spec: AttentionSpec, positions: str) -> str:
    """``linear_pos`` of the positions of the keys ``(keys, dim)``, as ``(heads, head_dim, keys)``.

    It is computed in every call, because the table of all 5000 projected positions would take 5000 * dim * 4 bytes per
    block (123 MB for 12 blocks of 512), more than an int8 model of that size can spare.
    """
    projected = graph.linear(positions, f"{path}.linear_pos", spec.dim, spec.dim, bias=False)
    return graph.transpose(graph.reshape(projected, 0, spec.heads, spec.head_dim), 1, 2, 0)
