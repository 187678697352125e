"""The int8 weights in a bundle: -127..127, one scale per output channel, and what the report simulates for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from model_helpers import features
from onnx import TensorProto, numpy_helper
from places import ROOT
from quant_helpers import observed_plan

from edge.model.checkpoint import load_experiment
from edge.runtime import Bundle
from quant.bundle import quantize_checkpoint
from quant.precision.plan import Precision
from quant.precision.scales import make_plan, with_scheme
from quant.report.precisions import plan_of
from quant.schemes.registry import scheme as scheme_of

MODELS = ROOT / "models"
FEATURES = features(243)[0].numpy()


def int8_weights(bundle: Path) -> dict[str, npt.NDArray[np.int8]]:
    """``(out, ...)`` by module path, from both graphs; MatMulInteger has them transposed."""
    found = {}
    for name in ("encoder", "decoder"):
        graph = onnx.load(bundle / f"{name}.onnx").graph
        transposed = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.INT8 and tensor.name.endswith(".weight"):
                q = numpy_helper.to_array(tensor)
                found[tensor.name.removesuffix(".weight")] = q.T if tensor.name in transposed else q
    return found


def rows(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return weight.reshape(len(weight), -1)


def test_the_shipped_weights_are_the_floats_to_half_a_step_of_their_channel() -> None:
    """Every channel of every layer and every expert uses its range; its scale is in the graph, its zero point is 0."""
    weights = load_experiment(MODELS / "reference").weights
    floats = {name.removesuffix(".weight"): value.numpy() for name, value in weights.items()}
    stored, checked = int8_weights(MODELS / "reference-int8"), 0
    for name in ("encoder", "decoder"):
        graph = onnx.load(MODELS / "reference-int8" / f"{name}.onnx").graph
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            path = node.input[0].removesuffix(".weight") if node.input else ""
            if node.op_type != "DequantizeLinear" or path not in stored:
                continue
            weight, q = rows(floats[path]).astype(np.float64), rows(stored[path]).astype(np.int64)
            step = np.abs(weight).max(axis=1) / 127.5  # the observer's: half of -128..127
            np.testing.assert_allclose(values[node.input[1]], step, rtol=1e-5)
            assert not values[node.input[2]].any()
            assert (np.abs(q).max(axis=1) == 127).all(), path
            assert (np.abs(q * step[:, None] - weight) <= 0.5001 * step[:, None]).all(), path
            checked += 1
    assert checked == len(stored) > 250


@pytest.mark.parametrize("scheme", ["static", "static16", "dynamic"])
def test_every_scheme_of_8_bit_products_uses_127_steps(pristine: Path, tmp_path: Path, scheme: Precision) -> None:
    plan = observed_plan(pristine, FEATURES, "static" if scheme == "static16" else scheme)
    quantize_checkpoint(pristine, with_scheme(plan, "static16") if scheme == "static16" else plan, tmp_path / "out")
    largest = [np.abs(q.astype(int)).max() for q in int8_weights(tmp_path / "out").values()]
    assert len(largest) > 20 and set(largest) == {127}


def test_the_report_simulates_the_weights_that_the_bundle_has(pristine: Path, tmp_path: Path) -> None:
    experiment = load_experiment(pristine)
    quantize_checkpoint(pristine, make_plan(experiment, None, "dynamic"), tmp_path / "out")
    again = plan_of(Bundle.open(tmp_path / "out"), experiment, None)
    modules = dict(experiment.build().named_modules())
    for path, q in int8_weights(tmp_path / "out").items():
        layer = again.layers[path]
        weight = rows(scheme_of(layer.precision).fake_weight(path, modules[path], layer).numpy())
        step = np.abs(weight).max(axis=1, keepdims=True) / np.abs(rows(q).astype(int)).max(axis=1, keepdims=True)
        np.testing.assert_allclose(weight, rows(q) * step, rtol=1e-4, atol=1e-7)


def test_a_graph_that_is_left_in_float_says_so(pristine: Path, tmp_path: Path) -> None:
    plan = make_plan(load_experiment(pristine), None, "dynamic", keep=["decoder"])
    manifest = quantize_checkpoint(pristine, plan, tmp_path / "out").manifest
    assert (manifest.encoder.scheme, manifest.decoder.scheme) == ("dynamic", "fp32")
