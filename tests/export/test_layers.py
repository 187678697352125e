"""Parts of the exported graphs against the formulas, written as loops; and files on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_helpers import Float32, Stream, load, run, tiny_config, tiny_weights

from edge.export.attention import AttentionSpec, chunk_attention
from edge.export.convolution import ConvolutionSpec, convolution
from edge.export.encoder import encoder_graph
from edge.export.experts import FeedForwardSpec, feed_forward
from edge.export.graph import GraphBuilder
from edge.export.layers import MASKED, position_table
from edge.export.options import ExportError, ExportOptions
from edge.export.save import save_graph

DIM, HIDDEN = 8, 12


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def expert_weights(experts: int, bias: bool, seed: int = 0) -> dict[str, Float32]:
    random = np.random.default_rng(seed)
    weights = {"moe.gate.weight": random.standard_normal((experts, DIM))}
    for i in range(experts):
        for layer, shape in (("w_1", (HIDDEN, DIM)), ("w_2", (DIM, HIDDEN))):
            weights[f"moe.experts.{i}.{layer}.weight"] = random.standard_normal(shape)
            if bias:
                weights[f"moe.experts.{i}.{layer}.bias"] = random.standard_normal(shape[0])
    return {k: v.astype(np.float32) for k, v in weights.items()}


def moe_session(weights: dict[str, Float32], active: int, activation: str, scale: float) -> Any:
    experts = weights["moe.gate.weight"].shape[0]
    spec = FeedForwardSpec(DIM, HIDDEN, activation, "moe.experts.0.w_1.bias" in weights, experts, active)
    graph = GraphBuilder("moe", weights, ExportOptions())
    y, counts = feed_forward(graph, graph.input("x", np.float32, ("rows", DIM), ""), "moe", spec, scale)
    assert counts is not None
    graph.output("y", y, np.float32, ("rows", DIM), "")
    graph.output("counts", counts, np.int64, (experts,), "")
    graph.check_all_used("moe.")
    model = graph.model("", {})
    onnx.checker.check_model(model, full_check=True)
    return load(model)


def moe_loop(weights: dict[str, Float32], x: Float32, active: int, activation: str) -> tuple[Float32, list[int]]:
    """The mixture one row at a time, in float64 (arXiv 2305.15663)."""
    gate = weights["moe.gate.weight"].astype(np.float64)
    y, counts = np.zeros(x.shape), [0] * len(gate)
    kinds: dict[str, Callable[[Any], Any]] = {
        "swish": lambda v: v * sigmoid(v),
        "relu": lambda v: np.maximum(v, 0),
        "gelu": lambda v: v * 0.5 * (1 + np.array([math.erf(e / math.sqrt(2)) for e in v])),
    }
    for row, frame in enumerate(x.astype(np.float64)):
        scores = gate @ frame
        chosen = sorted(range(len(gate)), key=lambda e: -scores[e])[:active]
        total = sum(math.exp(scores[e] - scores[chosen[0]]) for e in chosen)
        for e in chosen:
            name = f"moe.experts.{e}"
            hidden = kinds[activation](weights[f"{name}.w_1.weight"] @ frame + weights.get(f"{name}.w_1.bias", 0))
            out = weights[f"{name}.w_2.weight"] @ hidden + weights.get(f"{name}.w_2.bias", 0)
            y[row] += math.exp(scores[e] - scores[chosen[0]]) / total * out
            counts[e] += 1
    return y.astype(np.float32), counts


@pytest.mark.parametrize(
    ("experts", "active", "activation", "bias"),
    [(4, 1, "swish", True), (8, 3, "gelu", False), (8, 2, "relu", True), (2, 2, "swish", False), (1, 1, "swish", True)],
)
def test_mixture_is_the_formula(experts: int, active: int, activation: str, bias: bool) -> None:
    weights = expert_weights(experts, bias)
    session = moe_session(weights, active, activation, scale=0.5)
    routes = set()
    for rows in (1, 2, 3, 40):
        x = np.random.default_rng(rows).standard_normal((rows, DIM)).astype(np.float32)
        wanted, counts = moe_loop(weights, x, active, activation)
        out = run(session, x=x)
        assert out["counts"].tolist() == counts
        np.testing.assert_allclose(out["y"], 0.5 * wanted, rtol=1e-4, atol=1e-4)
        routes.add(tuple(counts))
    assert len(routes) == 4  # the inputs did route differently


@pytest.mark.parametrize("active", [1, 2])
def test_mixture_without_rows(active: int) -> None:
    out = run(moe_session(expert_weights(4, True), active, "swish", 0.5), x=np.zeros((0, DIM), np.float32))
    assert out["y"].shape == (0, DIM)
    assert out["counts"].tolist() == [0] * 4


@pytest.mark.parametrize("active", [1, 2])
def test_expert_with_every_row_and_expert_with_none(active: int) -> None:
    weights = expert_weights(5, True)
    weights["moe.gate.weight"][2] = 10.0  # positive rows always choose 2 and never 4
    weights["moe.gate.weight"][4] = -10.0
    x = np.random.default_rng(3).uniform(0.1, 1, (17, DIM)).astype(np.float32)
    wanted, counts = moe_loop(weights, x, active, "swish")
    assert counts[2] == 17 and counts[4] == 0
    out = run(moe_session(weights, active, "swish", 1.0), x=x)
    assert out["counts"].tolist() == counts
    np.testing.assert_allclose(out["y"], wanted, rtol=1e-4, atol=1e-4)


def test_equal_scores_go_to_the_first_experts() -> None:
    """Ties (silence, zero frames): every row still meets exactly ``active`` experts, those of the lowest index."""
    weights, x = expert_weights(4, True), np.zeros((6, DIM), np.float32)
    wanted, counts = moe_loop(weights, x, 2, "swish")
    out = run(moe_session(weights, 2, "swish", 1.0), x=x)
    assert out["counts"].tolist() == counts == [6, 6, 0, 0]
    np.testing.assert_allclose(out["y"], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_attention_is_the_formula(relative: bool) -> None:
    """WeNet's attention query by query and head by head: no relative shift, positions of the keys only."""
    random, heads, size, cached, frames = np.random.default_rng(6), 2, DIM // 2, 3, 5
    keys = cached + frames
    weights = {f"a.linear_{n}.weight": random.standard_normal((DIM, DIM)) for n in ("q", "k", "v", "out", "pos")}
    weights |= {f"a.linear_{n}.bias": random.standard_normal(DIM) for n in ("q", "k", "out")}
    weights |= {f"a.pos_bias_{n}": random.standard_normal((heads, size)) for n in "uv"}
    x, cache, table = (random.standard_normal(s) for s in ((frames, DIM), (heads, cached, 2 * size), (5000, DIM)))
    hidden = np.arange(keys) < 2

    graph = GraphBuilder("attention", {k: v.astype(np.float32) for k, v in weights.items()})
    embedding = table[10 : 10 + keys].astype(np.float32)
    positions = graph.constant(embedding, np.float32)
    y, next_cache = chunk_attention(
        graph,
        graph.input("x", np.float32, (frames, DIM), ""),
        "a",
        AttentionSpec(DIM, heads, value_bias=False),
        graph.input("cache", np.float32, cache.shape, ""),
        graph.constant(np.where(hidden, MASKED, 0)[None, None], np.float32),
        positions if relative else None,
    )
    graph.output("y", y, np.float32, (frames, DIM), "")
    graph.output("next", next_cache, np.float32, (heads, keys, 2 * size), "")
    out = run(load(graph.model("", {})), x=x.astype(np.float32), cache=cache.astype(np.float32))

    def linear(name: str, value: Any) -> Any:
        return value @ weights[f"a.linear_{name}.weight"].T + weights.get(f"a.linear_{name}.bias", 0)

    context = np.zeros((frames, DIM))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        key, value = (
            np.concatenate([cache[head][:, i * size : (i + 1) * size], linear(n, x)[:, part]])
            for i, n in enumerate("kv")
        )
        for t, query in enumerate(linear("q", x)[:, part]):
            if relative:
                where = linear("pos", table[10 : 10 + keys])[:, part]
                scores = key @ (query + weights["a.pos_bias_u"][head]) + where @ (query + weights["a.pos_bias_v"][head])
            else:
                scores = key @ query
            attention = np.where(hidden, 0, np.exp(scores / math.sqrt(size)))
            context[t, part] = attention / attention.sum() @ value
        np.testing.assert_allclose(out["next"][head], np.concatenate([key, value], axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["y"], linear("out", context), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize(("causal", "bias"), [(True, True), (False, True), (True, False)])
def test_convolution_module_is_the_formula(norm: str, causal: bool, bias: bool) -> None:
    random, kernel, frames = np.random.default_rng(5), 5, 9
    shapes = {
        "pointwise_conv1": (2 * DIM, DIM, 1),
        "depthwise_conv": (DIM, 1, kernel),
        "pointwise_conv2": (DIM, DIM, 1),
    }
    drawn = {f"c.{k}.weight": random.standard_normal(s) for k, s in shapes.items()}
    drawn |= {f"c.{k}.bias": random.standard_normal(s[0]) for k, s in shapes.items() if bias}
    drawn |= {f"c.norm.{k}": random.uniform(0.5, 2, DIM) for k in ("weight", "bias")}
    if norm == "batch_norm":
        drawn |= {f"c.norm.{k}": random.uniform(0.5, 2, DIM) for k in ("running_mean", "running_var")}
    weights = {k: v.astype(np.float32) for k, v in drawn.items()}
    context = kernel - 1 if causal else 0
    x, cache = (random.standard_normal((n, DIM)).astype(np.float32) for n in (frames, context))

    graph = GraphBuilder("conv", weights)
    spec = ConvolutionSpec(DIM, kernel, context, bias, "swish", norm, 1e-5)
    old = graph.input("cache", np.float32, (context, DIM), "") if causal else None
    y, new = convolution(graph, graph.input("x", np.float32, ("frames", DIM), ""), "c", spec, old)
    graph.output("y", y, np.float32, ("frames", DIM), "")
    if new is not None:
        graph.output("next", new, np.float32, (context, DIM), "")
    graph.check_all_used("c.")
    out = run(load(graph.model("", {})), x=x, **({"cache": cache} if causal else {}))

    padded = np.concatenate([cache, x]).astype(np.float64)  # causal: history before the first pointwise layer
    both = padded @ weights["c.pointwise_conv1.weight"][:, :, 0].T + weights.get("c.pointwise_conv1.bias", 0)
    gated = both[:, :DIM] * sigmoid(both[:, DIM:])
    if not causal:  # symmetric: zeros after the gate
        gated = np.pad(gated, ((kernel // 2, kernel // 2), (0, 0)))
    h = np.stack([(gated[t : t + kernel] * weights["c.depthwise_conv.weight"][:, 0].T).sum(0) for t in range(frames)])
    h = h + weights.get("c.depthwise_conv.bias", 0)
    mean, var = (
        (h.mean(-1, keepdims=True), h.var(-1, keepdims=True))
        if norm == "layer_norm"
        else (weights["c.norm.running_mean"], weights["c.norm.running_var"])
    )
    h = (h - mean) / np.sqrt(var + 1e-5) * weights["c.norm.weight"] + weights["c.norm.bias"]
    wanted = (h * sigmoid(h)) @ weights["c.pointwise_conv2.weight"][:, :, 0].T
    wanted = wanted + weights.get("c.pointwise_conv2.bias", 0)
    np.testing.assert_allclose(out["y"], wanted, rtol=1e-4, atol=1e-4)
    if causal:
        np.testing.assert_array_equal(out["next"], padded[-context:].astype(np.float32))


def test_position_table_is_the_sinusoid() -> None:
    table = position_table(GraphBuilder("g", {}), "absent", 6)
    for position in (0, 1, 77, 4999):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=5e-4)  # float32 angles
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=5e-4)
    own = np.full((1, 5000, 6), 3, np.float32)
    assert np.array_equal(position_table(GraphBuilder("g", {"pe": own}), "pe", 6), own[0])


def test_equal_nodes_and_constants_are_emitted_once() -> None:
    graph = GraphBuilder("g", {})
    x = graph.input("x", np.float32, ("n",), "")
    assert graph.node("Add", x, graph.scalar(2.0)) == graph.node("Add", x, graph.scalar(2.0))
    assert graph.node("Add", x, graph.scalar(2.0)) != graph.node("Add", x, graph.scalar(3.0))
    graph.output("y", graph.node("Mul", graph.node("Add", x, graph.scalar(2.0)), x), np.float32, ("n",), "")
    graph.output("same", graph.node("Mul", graph.node("Add", x, graph.scalar(2.0)), x), np.float32, ("n",), "")
    graph.output("copy", x, np.float32, ("n",), "")
    model = graph.model("", {"key": "value"})
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul", "Identity", "Identity"]
    out = run(load(model), x=np.array([1, 2], np.float32))
    assert out["y"].tolist() == out["same"].tolist() == [3, 8]
    assert out["copy"].tolist() == [1, 2]
    assert [(p.key, p.value) for p in model.metadata_props] == [("key", "value")]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, onnx.ModelProto, Float32]:
    config = tiny_config({"linear_units": 256})  # so that weights outweigh nodes
    return config, encoder_graph(config, tiny_weights(config)), np.ones((31, 23), np.float32)


def test_external_data_round_trip(tiny: tuple[Any, onnx.ModelProto, Float32], tmp_path: Path) -> None:
    config, model, x = tiny
    before = model.SerializeToString(deterministic=True)
    path = tmp_path / "new" / "encoder.onnx"
    assert save_graph(model, path, external_above=10_000) == [path, path.with_name("encoder.onnx.data")]
    assert model.SerializeToString(deterministic=True) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["encoder.onnx", "encoder.onnx.data"]
    assert path.stat().st_size < len(before) - path.with_name("encoder.onnx.data").stat().st_size * 0.5
    stream = Stream(model, config)
    wanted = stream.step(x)
    stream = Stream(model, config)
    stream.session = load(str(path))
    assert np.array_equal(stream.step(x)["log_probs"], wanted["log_probs"])
    entries = [
        {e.key: e.value for e in t.external_data}
        for t in onnx.load(path, load_external_data=False).graph.initializer
        if t.external_data
    ]
    assert len(entries) > 20 and all(int(e["offset"]) % 4096 == 0 for e in entries)  # pages, to be mapped
    restored = onnx.load(path)  # reads the external data back
    assert [(t.name, onnx.numpy_helper.to_array(t).tobytes()) for t in restored.graph.initializer] == [
        (t.name, onnx.numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer
    ]
    # Saved again as one file, the old data file goes.
    assert save_graph(model, path) == [path]
    assert [p.name for p in path.parent.iterdir()] == ["encoder.onnx"]
    stream = Stream(onnx.load(path), config)
    assert np.array_equal(stream.step(x)["log_probs"], wanted["log_probs"])


@pytest.mark.parametrize("external_above", [0, 10**9])
def test_an_invalid_graph_leaves_the_old_file_alone(
    tiny: tuple[Any, onnx.ModelProto, Float32], tmp_path: Path, external_above: int
) -> None:
    path = tmp_path / "encoder.onnx"
    save_graph(tiny[1], path)
    before = path.read_bytes()
    broken = onnx.ModelProto()
    broken.CopyFrom(tiny[1])
    broken.graph.node[3].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="not a valid ONNX graph"):
        save_graph(broken, path, external_above)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.onnx"]
