"""Every precision against the same arithmetic written out in numpy, on the rows and weights that break things."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from export_helpers import Float32, load, run
from quant_helpers import blocks, dynamic, int8, rounding_of_blocks, static, uint8

from edge.export.experts import FeedForwardSpec, feed_forward
from edge.export.graph import GraphBuilder
from edge.export.linear import LinearScheme
from edge.export.subsampling import subsampling
from edge.runtime.engines.openvino.core import Compilation, compile_model, core
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationError, QuantizationPlan
from quant.schemes.planned import PlannedScheme

PRECISIONS: tuple[Precision, ...] = ("static", "dynamic", "weight8", "weight4")
X = ActivationScale(6 / 255, 120)


def planned(**layers: LayerPlan) -> PlannedScheme:
    return PlannedScheme(QuantizationPlan("mixed", layers))


def random(*shape: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer(weight: Float32, bias: Float32 | None, scheme: LinearScheme | None) -> onnx.ModelProto:
    """``y`` = the linear layer ``p`` of ``x``."""
    weights = {"p.weight": weight} | ({} if bias is None else {"p.bias": bias})
    graph = GraphBuilder("layer", weights, scheme=scheme)
    x = graph.input("x", np.float32, ("rows", weight.shape[1]), "")
    y = graph.linear(x, "p", weight.shape[1], weight.shape[0], bias is not None)
    graph.output("y", y, np.float32, ("rows", weight.shape[0]), "")
    model = graph.model("", {})
    onnx.checker.check_model(model)
    assert {o.domain: o.version for o in model.opset_import}[""] == 17
    return model


def infer(model: onnx.ModelProto, x: Float32) -> Float32:
    return np.asarray(run(load(model), x=x)["y"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24, 16), (96, 250), (256, 96), (1, 33)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_layer_is_the_arithmetic(precision: Precision, shape: tuple[int, int], bias: bool) -> None:
    weight, x = random(*shape) * 0.2, np.clip(random(17, shape[1], seed=1), -2.8, 3.1)  # in the range of X
    weight *= np.linspace(0.01, 3, shape[0], dtype=np.float32)[:, None]  # channels need scales of their own
    offset = random(shape[0], seed=2) if bias else None
    model = layer(weight, offset, planned(p=LayerPlan(precision, input=X)))
    y = infer(model, x)
    zero = 0.0 if offset is None else offset
    if precision in ("static", "dynamic"):
        wanted = static(x, weight, offset, X) if precision == "static" else dynamic(x, weight, offset)
        # Sums are exact integers; what differs is float32 rounding of scales, and of a quotient that is nearly a half.
        off = np.abs(y - wanted) > 1e-5 * np.abs(wanted).max()
        assert off.mean() < (0.01 if precision == "static" else 0.07), (y - wanted)[off]
        assert np.abs(y - wanted).max() < 2 * np.abs(weight).max() * 12 / 255  # two such halves in one row
    else:
        stored = blocks(weight, 8 if precision == "weight8" else 4)
        wanted = x @ stored.T + zero
        assert (np.abs(y - wanted) <= rounding_of_blocks(x, stored) + 1e-4).all()
    exact = x @ weight.T + zero
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < (0.12 if precision == "weight4" else 0.02)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_rows(precision: Precision) -> None:
    model = layer(random(24, 40), random(24), planned(p=LayerPlan(precision, input=X)))
    assert infer(model, np.zeros((0, 40), np.float32)).shape == (0, 24)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_of_zeros_is_the_bias(precision: Precision) -> None:
    """Zero is a number of the grid, whatever the scale. (int8 rounds a bias to x_scale * w_scale / 2.)"""
    weight, bias = random(24, 40), random(24, seed=3)
    y = infer(layer(weight, bias, planned(p=LayerPlan(precision, input=X))), np.zeros((3, 40), np.float32))
    assert (np.abs(y - bias) <= X.scale * np.abs(weight).max() / 127).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_channels_of_nothing(precision: Precision) -> None:
    """Zero and nearly zero channels, with a bias that int32 could not hold in units of their scale."""
    weight, bias, x = random(6, 64), random(6, seed=4) + 5, random(9, 64, seed=5)
    weight[1], weight[2], weight[3] = 0, 1e-30, 1e-9 * weight[3]
    y = infer(layer(weight, bias, planned(p=LayerPlan(precision, input=X))), x)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[:, 1:4], np.tile(bias[1:4], (9, 1)), rtol=1e-3)
    assert np.linalg.norm(y - (x @ weight.T + bias)) / np.linalg.norm(x @ weight.T) < (
        0.15 if precision == "weight4" else 0.02
    )


def test_an_input_that_never_moved() -> None:
    y = infer(layer(random(8, 16), random(8), planned(p=LayerPlan("static", ActivationScale(1e-60, 0)))), random(3, 16))
    np.testing.assert_allclose(y, np.tile(random(8), (3, 1)), rtol=1e-3)


def test_weight_scales_of_an_observer() -> None:
    """They may clip; they must be there for every channel and positive."""
    weight, x = random(5, 16), random(4, 16, seed=1)
    scale = (np.abs(weight).max(axis=1) / 200).astype(np.float32)
    y = infer(layer(weight, None, planned(p=LayerPlan("static", X, weight_scale=scale))), x)
    clipped = np.clip(np.rint(weight / scale[:, None]), -127, 127) * scale[:, None]
    np.testing.assert_allclose(y, uint8(x, X) * X.scale @ clipped.T, rtol=1e-4, atol=1e-4)
    for bad in (scale[:4], scale * 0, scale * np.nan):
        with pytest.raises(QuantizationError, match="p: expected 5 positive weight scales"):
            layer(weight, None, planned(p=LayerPlan("static", X, weight_scale=bad)))


def test_static_needs_a_scale() -> None:
    with pytest.raises(QuantizationError, match="p: expected the scale of its input for static int8, found none"):
        layer(random(5, 16), None, planned(p=LayerPlan("static")))


def test_what_the_plan_does_not_list_is_float() -> None:
    weight, bias, x = random(5, 16), random(5), random(4, 16, seed=1)
    for scheme in (planned(other=LayerPlan("static", X)), planned(p=LayerPlan("fp32", X))):
        assert layer(weight, bias, scheme) == layer(weight, bias, None)
        np.testing.assert_allclose(infer(layer(weight, bias, scheme), x), x @ weight.T + bias, rtol=1e-5, atol=1e-5)


def test_layers_that_read_the_same_input_share_its_rounding() -> None:
    weights = {f"{p}.weight": random(16, 16, seed=i) for i, p in enumerate("abc")}
    scheme = planned(a=LayerPlan("static", X), b=LayerPlan("static", X), c=LayerPlan("static", ActivationScale(0.1, 3)))
    graph = GraphBuilder("three", weights, scheme=scheme)
    x = graph.input("x", np.float32, ("rows", 16), "")
    for name in "abc":
        graph.output(f"y{name}", graph.linear(x, name, 16, 16, False), np.float32, ("rows", 16), "")
    assert [n.op_type for n in graph.model("", {}).graph.node].count("QuantizeLinear") == 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_rows_to_one_expert(precision: Precision) -> None:
    """Each expert has scales of its own; the experts without rows change nothing."""
    dim, hidden, weights = 16, 32, {"moe.gate.weight": np.zeros((4, 16), np.float32)}
    weights["moe.gate.weight"][2] = 1.0  # positive rows choose 2
    layers = {}
    for i in range(4):
        for name, shape in (("w_1", (hidden, dim)), ("w_2", (dim, hidden))):
            path = f"moe.experts.{i}.{name}"
            weights[f"{path}.weight"] = random(*shape, seed=i) * 0.3
            weights[f"{path}.bias"] = random(shape[0], seed=10 + i) * 0.1
            layers[path] = LayerPlan(precision, ActivationScale((2 + i) / 255, 10 * i))
    graph = GraphBuilder("moe", weights, scheme=PlannedScheme(QuantizationPlan(precision, layers)))
    spec = FeedForwardSpec(dim, hidden, "relu", True, experts=4, active=1)
    y, counts = feed_forward(graph, graph.input("x", np.float32, ("rows", dim), ""), "moe", spec)
    assert counts is not None
    graph.output("y", y, np.float32, ("rows", dim), "")
    graph.output("counts", counts, np.int64, (4,), "")
    session = load(graph.model("", {}))
    x = np.abs(random(13, dim, seed=20)) + 0.1
    out = run(session, x=x)
    assert out["counts"].tolist() == [0, 0, 13, 0]
    w = {k: weights[f"moe.experts.2.{k}"] for k in ("w_1.weight", "w_1.bias", "w_2.weight", "w_2.bias")}
    if precision == "static":
        h = np.maximum(static(x, w["w_1.weight"], w["w_1.bias"], ActivationScale(4 / 255, 20)), 0).astype(np.float32)
        wanted: Any = static(h, w["w_2.weight"], w["w_2.bias"], ActivationScale(4 / 255, 20))
        tolerance = 4 / 255 * np.abs(w["w_2.weight"]).max() * 2
    else:
        wanted = np.maximum(x @ w["w_1.weight"].T + w["w_1.bias"], 0) @ w["w_2.weight"].T + w["w_2.bias"]
        tolerance = (0.3 if precision == "weight4" else 0.05) * np.abs(wanted).max()
    assert np.abs(out["y"] - wanted).max() < tolerance
    assert run(session, x=x[:0])["y"].shape == (0, dim)


# Subsampling.

CHANNELS, BINS, LEFT = 8, 19, 4  # two convolutions leave 4 bins


def subsampler(**layers: LayerPlan) -> tuple[onnx.ModelProto, dict[str, Float32]]:
    """Two convolutions and a linear layer: e.conv.0, e.conv.2, e.out.0."""
    weights = {
        "e.conv.0.weight": random(CHANNELS, 1, 3, 3) * 0.4,
        "e.conv.0.bias": random(CHANNELS, seed=1) * 0.1,
        "e.conv.2.weight": random(CHANNELS, CHANNELS, 3, 3, seed=2) * 0.15,
        "e.conv.2.bias": random(CHANNELS, seed=3) * 0.1,
        "e.out.0.weight": random(CHANNELS, CHANNELS * LEFT, seed=4) * 0.2,
        "e.out.0.bias": random(CHANNELS, seed=5) * 0.1,
    }
    plan = QuantizationPlan("mixed", {f"e.{name.replace('_', '.')}": layer for name, layer in layers.items()})
    graph = GraphBuilder("subsampling", weights, scheme=PlannedScheme(plan))
    x = graph.input("x", np.float32, (1, "frames", BINS), "")
    graph.output("y", subsampling(graph, x, "e", "conv2d", BINS, CHANNELS), np.float32, ("n", CHANNELS), "")
    return graph.model("", {}), weights


def convolve(x: npt.NDArray[Any], weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``x (in, height, width)``, kernel 3, stride 2, no padding."""
    rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:])
    out = np.zeros((len(weight), rows, columns), x.dtype)
    for i in range(rows):
        for j in range(columns):
            patch = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            out[:, i, j] = (weight * patch).sum(axis=(1, 2, 3))
    return out


def by_hand(weights: dict[str, Float32], x: Float32, scales: dict[str, ActivationScale] | None) -> Float32:
    """The three layers; in integers when there are ``scales`` of the input, and of both outputs after the ReLU."""
    value: npt.NDArray[Any] = x
    before = scales and scales["input"]
    for name in ("e.conv.0", "e.conv.2"):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if scales and before:
            w, w_scale = int8(weight.reshape(CHANNELS, -1))
            step = before.scale * w_scale
            sums = (
                convolve(uint8(value, before), w.reshape(weight.shape))
                + np.rint(bias / step).astype(int)[:, None, None]
            )
            before = scales[name]
            value = uint8(np.asarray(sums * step[:, None, None], np.float32), before) * before.scale  # clips at 0: ReLU
            value = value.astype(np.float32)
        else:
            value = np.maximum(convolve(value, weight) + bias[:, None, None], 0)
    flat = value.transpose(1, 0, 2).reshape(value.shape[1], -1)
    if scales and before:
        return static(flat, weights["e.out.0.weight"], weights["e.out.0.bias"], before).astype(np.float32)
    return np.asarray(flat @ weights["e.out.0.weight"].T + weights["e.out.0.bias"])


CONV = {"input": X, "e.conv.0": ActivationScale(5 / 255, 0), "e.conv.2": ActivationScale(4 / 255, 0)}


def static_subsampler() -> tuple[onnx.ModelProto, dict[str, Float32]]:
    """Each layer's own input scale differs a little from the scale its input was written with."""
    return subsampler(
        conv_0=LayerPlan("static", X, CONV["e.conv.0"]),
        conv_2=LayerPlan("static", ActivationScale(4.9 / 255, 0), CONV["e.conv.2"]),
        out_0=LayerPlan("static", ActivationScale(3.9 / 255, 0)),
    )


def test_integer_convolutions() -> None:
    model, weights = static_subsampler()
    x = np.clip(random(1, 47, BINS, seed=9), -2.8, 3.1)
    y = infer(model, x)
    wanted, exact = by_hand(weights, x, CONV), by_hand(weights, x, None)
    assert y.shape == wanted.shape == (11, CHANNELS)
    # One number rounded to the other side moves the outputs that read it by a step times a weight.
    assert np.abs(y - wanted).max() < 2 * CONV["e.conv.2"].scale * np.abs(weights["e.out.0.weight"]).max()
    assert (np.abs(y - wanted) < 1e-5).mean() > 0.8
    assert 1e-3 < np.linalg.norm(y - exact) / np.linalg.norm(exact) < 0.03
    # Nothing is rounded twice: beside the input and the two outputs only the rearranged output is read again, at its
    # own scale, which runtimes cancel.
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") == 4
    assert "Relu" not in [node.op_type for node in model.graph.node]


def test_an_output_range_that_does_not_start_at_zero() -> None:
    """A zero point would let negative values through the ReLU; the range above zero is kept."""
    layers = {"conv_0": LayerPlan("static", X, ActivationScale(8 / 255, 96))}  # up to 4.99
    model, weights = subsampler(**layers)
    x = np.clip(random(1, 47, BINS, seed=9), -2.8, 3.1)
    assert np.linalg.norm(infer(model, x) - by_hand(weights, x, None)) < 0.03 * np.linalg.norm(
        by_hand(weights, x, None)
    )


@pytest.mark.parametrize("precision", ["static", "dynamic", "weight8", "weight4"])
def test_convolutions_otherwise_compute_in_float(precision: Precision) -> None:
    """static without an output scale, and dynamic: float. Weight-only: in 8 bits."""
    model, weights = subsampler(conv_0=LayerPlan(precision, X), conv_2=LayerPlan(precision, X))
    x = random(1, 47, BINS, seed=9)
    if precision.startswith("weight"):
        stored = {t.name: t.data_type for t in model.graph.initializer}
        assert stored["e.conv.2.weight"] == onnx.TensorProto.INT8
        for name in ("e.conv.0.weight", "e.conv.2.weight"):
            w, scale = int8(weights[name].reshape(CHANNELS, -1))
            weights[name] = (w * scale[:, None]).reshape(weights[name].shape).astype(np.float32)
    np.testing.assert_allclose(infer(model, x), by_hand(weights, x, None), rtol=1e-4, atol=1e-5)


# On OpenVINO.


def openvino(model: onnx.ModelProto) -> Any:
    pytest.importorskip("openvino")
    return compile_model(core().read_model(model.SerializeToString()), Compilation())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_computes_the_same(precision: Precision) -> None:
    weight, x = random(48, 96) * 0.1, random(17, 96, seed=1)
    model = layer(weight, random(48, seed=2), planned(p=LayerPlan(precision, X)))
    compiled = openvino(model)
    difference = np.abs(compiled([x])[0] - infer(model, x)).max()
    # static: the same integers. dynamic: float there, from the same rounded numbers. Weight-only: float activations
    # there or in groups of its own, rounded in blocks here.
    assert difference < (1e-5 if precision in ("static", "dynamic") else 0.03)
    assert compiled([x[:0]])[0].shape == (0, 48)


def test_openvino_subsampling_is_the_same() -> None:
    model, weights = static_subsampler()
    compiled = openvino(model)
    x = np.clip(random(1, 47, BINS, seed=9), -2.8, 3.1)
    step = CONV["e.conv.2"].scale * np.abs(weights["e.out.0.weight"]).max()
    assert np.abs(compiled([x])[0] - infer(model, x)).max() < 2 * step
