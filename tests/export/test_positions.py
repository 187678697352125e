"""Positions composed in the graph against WeNet's table, at every position."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from export_helpers import Float32, load, run

from edge.export.graph import GraphBuilder
from edge.export.layers import MAX_POSITIONS, position_rows, position_table
from edge.export.options import ExportOptions

EVERY = np.arange(MAX_POSITIONS)


def graph_of(table: Float32, storage: Literal["fp32", "fp16"] = "fp16") -> onnx.ModelProto:
    graph = GraphBuilder("positions", {}, ExportOptions(storage=storage))
    rows = position_rows(graph, table, graph.input("index", np.int64, ("n",), ""))
    graph.output("rows", rows, np.float32, ("n", table.shape[1]), "")
    return graph.model("", {})


def wenet_table(dim: int) -> Float32:
    """The buffer ``pe``, as the torch reference builds it."""
    sinusoids = pytest.importorskip("edge.model.embedding").sinusoids
    return np.asarray(sinusoids(MAX_POSITIONS, dim))


@pytest.mark.parametrize("dim", [16, 96, 512])
def test_positions_are_the_tables(dim: int) -> None:
    table = wenet_table(dim)
    model = graph_of(table)
    assert model.ByteSize() < 0.05 * table.nbytes
    error: npt.NDArray[np.float32] = np.abs(run(load(model), index=EVERY)["rows"] - table).max(axis=1)
    # Rounding float32 angles up to 2**k moves them by up to 2**(k - 25); beside it there is the table's own rounding.
    # torch's exp may be off by one unit too (AVX2 and AVX512 differ), which moves angle p by up to p * 2**-24.
    assert error[:500].max() < 5e-5 and error[:64].max() < 6e-6
    assert error.max() < 6e-4
    assert error.max() > 1e-6  # it is not simply stored


def test_neighbouring_positions_keep_their_order() -> None:
    """The first row of each coarse step follows the last of the one before."""
    rows = run(load(graph_of(wenet_table(16))), index=EVERY)["rows"]
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()


def test_fp32_storage_holds_the_table_itself() -> None:
    table = wenet_table(16)
    assert np.array_equal(run(load(graph_of(table, "fp32")), index=EVERY)["rows"], table)


def test_other_tables_are_kept() -> None:
    """A learned table, and an odd dimension, in which the last sine has no cosine."""
    learned = np.random.default_rng(0).standard_normal((MAX_POSITIONS, 16)).astype(np.float32)
    for table in (learned, wenet_table(15)):
        model = graph_of(table)
        assert model.ByteSize() > table.nbytes
        assert np.array_equal(run(load(model), index=EVERY[::-1])["rows"], table[::-1])


def test_one_position_off_is_another_table() -> None:
    table = wenet_table(16)
    shifted = position_table(GraphBuilder("g", {"pe": np.roll(table, 1, axis=0)[None]}), "pe", 16)
    assert np.array_equal(run(load(graph_of(shifted)), index=[0, 70])["rows"], table[[-1, 69]])
