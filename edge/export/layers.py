"""Small layers every part uses: layer norm, activations, the sinusoid position table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.export.graph import Float32, GraphBuilder
from edge.export.options import ExportError
from edge.runtime.manifest import MAX_POSITIONS

_STEP = 64  # positions between the rows of the coarse table
_SINUSOID_TOLERANCE = 6e-4
"""Of angles near 5000: half a unit in the last place of float32 is 2.4e-4, and torch's exp gives frequencies that are
one unit apart on AVX2 and AVX512, 2^-24 * 5000 = 3e-4."""

MASKED = -1e9
"""Added to the scores of masked keys. Softmax gives them exactly 0, as -inf would, but a row with
every key masked stays finite."""


def layer_norm(graph: GraphBuilder, x: str, path: str, dim: int, eps: float) -> str:
    """Layer normalization over the last axis of ``x (rows, dim)``."""
    return graph.node(
        "LayerNormalization",
        x,
        graph.weight(f"{path}.weight", dim),
        graph.weight(f"{path}.bias", dim),
        axis=-1,
        epsilon=eps,
    )


def activation(graph: GraphBuilder, x: str, kind: str) -> str:
    """One of ``edge.model.feedforward.ACTIVATIONS``; gelu exact, by erf: opset 20 has the operator, older runtimes only
    fuse it."""
    if kind == "swish":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if kind == "relu":
        return graph.node("Relu", x)
    if kind == "gelu":
        erf = graph.node("Erf", graph.node("Div", x, graph.scalar(math.sqrt(2.0))))
        return graph.node("Mul", graph.node("Mul", x, graph.node("Add", erf, graph.scalar(1.0))), graph.scalar(0.5))
    if kind == "tanh":
        return graph.node("Tanh", x)
    if kind == "hardtanh":
        return graph.node("Clip", x, graph.scalar(-1.0), graph.scalar(1.0))
    if kind == "selu":
        return graph.node("Selu", x)
    raise ExportError(f"activation_type: expected swish, relu, gelu, tanh, hardtanh or selu, found {kind!r}")


def position_table(graph: GraphBuilder, name: str, dim: int) -> Float32:
    """WeNet's sinusoid table ``(5000, dim)``: sin at even, cos at odd columns of pos / 10000^(2i/dim).

    The checkpoint's own buffer is used where it has one: float32 sines of angles near 5000 differ by
    3e-5 between math libraries, and the model was trained with that table.
    """
    if graph.has(name):
        return graph.array(name, 1, MAX_POSITIONS, dim).reshape(MAX_POSITIONS, dim)
    # Angles are rounded to float32 as WeNet's are; the functions themselves are evaluated exactly.
    angle = np.arange(MAX_POSITIONS, dtype=np.float32)[:, None] * _frequencies(dim)
    table = np.empty((MAX_POSITIONS, dim), dtype=np.float32)
    table[:, 0::2] = np.sin(angle.astype(np.float64))
    table[:, 1::2] = np.cos(angle.astype(np.float64))[:, : dim // 2]
    return table


def position_rows(graph: GraphBuilder, table: Float32, index: str) -> str:
    """Rows ``index (n,)`` of a table from ``position_table``, as ``(n, dim)``.

    fp32 storage promises WeNet's numbers and stores the table, 5000 * dim * 4 bytes in each graph. That is a quarter
    of a small int8 model, so fp16 storage, which rounds anyway and which int8 bundles use, composes position 64 a + b
    from tables of 79 and 64 angles: sin(x + y) = sin x cos y + cos x sin y, and the cosine likewise. That is the exact
    angle, where WeNet's is rounded to float32: they differ by less than 5e-5 up to position 500 (20 s), by 6e-4 at
    most near 5000. A table that is no sinusoid is stored as it is.
    """
    dim = table.shape[1]
    exact = graph.options.storage == "fp32"
    if exact or dim % 2 or np.abs(table - _sinusoids(np.arange(MAX_POSITIONS), dim)).max() > _SINUSOID_TOLERANCE:
        return graph.node("Gather", graph.constant(table, np.float32), index, axis=0)
    steps = graph.scalar(_STEP)
    coarse, fine = _sinusoids(np.arange(0, MAX_POSITIONS, _STEP), dim), _sinusoids(np.arange(_STEP), dim)

    def rows(array: Float32, which: str) -> str:
        return graph.node("Gather", graph.constant(array, np.float32), which, axis=0)

    a, b = graph.node("Div", index, steps), graph.node("Mod", index, steps)
    sin_a, cos_a = rows(coarse[:, 0::2], a), rows(coarse[:, 1::2], a)
    sin_b, cos_b = rows(fine[:, 0::2], b), rows(fine[:, 1::2], b)
    sin = graph.node("Add", graph.node("Mul", sin_a, cos_b), graph.node("Mul", cos_a, sin_b))
    cos = graph.node("Sub", graph.node("Mul", cos_a, cos_b), graph.node("Mul", sin_a, sin_b))
    pairs = graph.concat([graph.unsqueeze(sin, 2), graph.unsqueeze(cos, 2)], axis=2)
    return graph.reshape(pairs, 0, dim)


def _frequencies(dim: int) -> Float32:
    """Radians per position of each pair of columns, ``(ceil(dim / 2),)``, in WeNet's float32."""
    exponent = np.arange(0, dim, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / dim)
    return np.exp(exponent.astype(np.float64)).astype(np.float32)


def _sinusoids(positions: npt.NDArray[np.int64], dim: int) -> Float32:
    """Rows of the table from exact angles; ``dim`` even."""
    angle = positions[:, None] * _frequencies(dim).astype(np.float64)
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(positions), dim).astype(np.float32)


def clamped_positions(graph: GraphBuilder, first: str, end: str) -> str:
    """int64 positions first..end-1 (scalars), clamped into the table."""
    positions = graph.node("Range", first, end, graph.scalar(1))
    return graph.node("Clip", positions, graph.scalar(0), graph.scalar(MAX_POSITIONS - 1))


@dataclass(frozen=True)
class ResidualNorm:
    """Residual connection and layer norm around the parts of a block, in WeNet's two orders.

    ``first`` (``normalize_before``): x + layer(norm(x)). Otherwise: norm(x + layer(x)).
    """

    path: str  # of the block
    dim: int
    eps: float
    first: bool

    def before(self, graph: GraphBuilder, x: str, name: str) -> str:
        """What the part around norm ``name`` reads."""
        return layer_norm(graph, x, f"{self.path}.{name}", self.dim, self.eps) if self.first else x

    def after(self, graph: GraphBuilder, x: str, y: str, name: str) -> str:
        """The block's value after the part, whose input was made from ``x`` and whose output is ``y``."""
        x = graph.node("Add", x, y)
        return x if self.first else layer_norm(graph, x, f"{self.path}.{name}", self.dim, self.eps)
