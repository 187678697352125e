"""Every precision on both engines sums exactly, with the weights and activations whose 8-bit products are largest.

Expected values are integers multiplied in numpy. Kernels that add pairs of products in 16 bits give half of them
(255 * 127 * 2 = 64770, cut off at 32767). tests/runtime/engines/test_cpu_kinds.py runs this file as on other CPUs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from export_helpers import Float32, run
from quant_helpers import blocks, int8, uint8

from edge.export.graph import GraphBuilder
from edge.runtime.engines.onnxruntime_session import session
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationPlan
from quant.schemes.planned import PlannedScheme

Doubles = npt.NDArray[np.float64]
PRECISIONS: tuple[Precision, ...] = ("static", "static16", "dynamic", "weight8", "weight4")
X = ActivationScale(1.0, 128)  # -128..127
COLUMNS = 48


def weights(inputs: int) -> Float32:
    """(COLUMNS, inputs): rows of one sign, of signs in turn, of pairs, and random ones that reach the ends."""
    weight = np.random.default_rng(0).integers(-127, 128, (COLUMNS, inputs)).astype(np.float32)
    weight[:, 0] = 127
    at = np.arange(inputs)
    for row, signs in enumerate((1 + 0 * at, -1 + 0 * at, 1 - 2 * (at % 2), 1 - 2 * (at // 2 % 2))):
        weight[row] = 127 * signs
    return weight


def rows(count: int, inputs: int) -> Float32:
    """(count, inputs): the ends of the range, in all of a row, in turn, and at random."""
    x = np.random.default_rng(1).choice([X.low, X.high], (count, inputs)).astype(np.float32)
    at = np.arange(inputs)
    patterns = (0 * at + X.high, 0 * at + X.low, np.where(at % 2, X.low, X.high), np.where(at // 2 % 2, 0, X.high))
    for row, pattern in enumerate(patterns[:count]):
        x[row] = pattern
    return x


def layer(weight: Float32, precision: Precision) -> onnx.ModelProto:
    """``y`` = ``x (rows, in)`` through the linear layer ``p``; two more that read the same ``x``."""
    names = ("p", "q", "r")
    plan = QuantizationPlan(precision, {name: LayerPlan(precision, input=X) for name in names})
    graph = GraphBuilder("layer", {f"{name}.weight": weight for name in names}, scheme=PlannedScheme(plan))
    x = graph.input("x", np.float32, ("rows", weight.shape[1]), "")
    for name in names:
        y = graph.linear(x, name, weight.shape[1], len(weight), bias=False)
        graph.output(f"y{name}", y, np.float32, ("rows", len(weight)), "")
    return graph.model("", {})


def expected(x: Float32, weight: Float32, precision: Precision) -> Doubles:
    """By the definition of each precision. The ends of the range are numbers of every grid here."""
    if precision in ("weight8", "weight4"):
        return np.asarray(x @ blocks(weight, 8 if precision == "weight8" else 4).T)
    w, scale = int8(weight)
    if precision == "dynamic":
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        step = (high - low) / 255
        return np.asarray((uint8(x, ActivationScale(step, round(-low / step))) @ w.T) * (step * scale))
    integers = uint8(x, X) if precision == "static" else x.astype(np.float64)
    return np.asarray((integers @ w.T) * scale)


def close(y: Any, x: Float32, weight: Float32, precision: Precision) -> None:
    """Up to float32 rounding of scales, and of sums where an engine multiplies in float: n terms added in any order are
    off by at most n * 2^-24 of the sum of their magnitudes (Higham, Accuracy and Stability, 4.4). static16 also up to
    half of a 254th of a step per product, and block-wise ones to half a step of an int8 activation."""
    largest = np.abs(x).astype(np.float64) @ np.abs(weight).astype(np.float64).T
    allowed = (weight.shape[1] + 8) * 2.0**-24 * largest
    if precision == "static16":
        allowed = allowed + 0.5 / 254 * 128 / 127 * np.abs(weight).sum(axis=1)
    if precision in ("weight8", "weight4"):
        allowed = allowed + 0.5 / 127 * largest
    wanted = expected(x, weight, precision)
    assert (np.abs(y - wanted) <= allowed).all(), np.abs(y - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("inputs", [64, 250, 2560])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnxruntime(precision: Precision, inputs: int) -> None:
    weight = weights(inputs)
    loaded = session(layer(weight, precision).SerializeToString(), 1)
    for count in (1, 2, 4, 17, 40):  # one row, a few and many have kernels of their own
        x = rows(count, inputs)
        for y in run(loaded, x=x).values():
            close(y, x, weight, precision)


@pytest.mark.parametrize("inputs", [64, 250, 2560])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino(precision: Precision, inputs: int) -> None:
    core = pytest.importorskip("edge.runtime.engines.openvino.core")
    pytest.importorskip("openvino")
    weight = weights(inputs)
    model = core.core().read_model(layer(weight, precision).SerializeToString())
    compiled = core.compile_model(model, core.Compilation())
    for count in (1, 2, 4, 17, 40):
        x = rows(count, inputs)
        for y in compiled([x]).values():
            close(y, x, weight, precision)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_convolution(engine: str) -> None:
    """int8 with the ReLU in the rounding of its output; 32 and 96 input channels, as subsampling has them."""
    for channels in (32, 96):
        weight = weights(channels * 9).reshape(COLUMNS, channels, 3, 3)
        x = rows(channels, 11 * 9).reshape(1, channels, 11, 9)
        windows = np.lib.stride_tricks.sliding_window_view(uint8(x, X)[0], (3, 3), axis=(1, 2))[:, ::2, ::2]
        w, scale = int8(weight.reshape(COLUMNS, -1))
        sums = np.einsum("chwij,ocij->ohw", windows, w.reshape(weight.shape)) * scale[:, None, None]
        output = ActivationScale(float(sums.max()) / 255, 0)
        plan = QuantizationPlan("static", {"p": LayerPlan("static", X, output)})
        named = {"p.weight": weight, "p.bias": np.zeros(COLUMNS, np.float32)}
        graph = GraphBuilder("convolution", named, scheme=PlannedScheme(plan))
        value = graph.conv2d(graph.input("x", np.float32, x.shape, ""), "p", channels, COLUMNS, 3, 2)
        graph.output("y", value, np.float32, (1, COLUMNS, 5, 4), "")
        model = graph.model("", {})
        if engine == "onnxruntime":
            y = run(session(model.SerializeToString(), 1), x=x)["y"]
        else:
            core = pytest.importorskip("edge.runtime.engines.openvino.core")
            pytest.importorskip("openvino")
            read = core.core().read_model(model.SerializeToString())
            y = core.compile_model(read, core.Compilation())([x])[0]
        steps = np.clip(np.rint(sums / output.scale), 0, 255)
        assert np.abs(y[0] / output.scale - steps).max() <= 1.001  # a quotient that is nearly a half
        assert (np.abs(y[0] / output.scale - steps) < 0.01).mean() > 0.97
