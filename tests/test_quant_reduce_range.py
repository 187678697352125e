"""--reduce-range: int8 weights of -64..64, so that vpmaddubsw, which x86 without VNNI uses, never saturates.

The instruction multiplies unsigned by signed bytes and adds neighbouring products in 16 bits, with saturation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from model_helpers import features
from onnx import TensorProto, numpy_helper
from quant_helpers import observed_plan

from calibration.corpus import read_corpus
from calibration.profile import Profile
from edge.export.convert import ConvertOptions
from edge.model.checkpoint import load_experiment
from edge.runtime import Bundle, Manifest, Recognizer
from quant.bundle import quantize_checkpoint
from quant.observe import observe, widened
from quant.plan import LayerPlan, Precision, QuantizationError, QuantizationPlan
from quant.report.precisions import plan_of
from quant.scheme_weights import channel_quantize
from quant.simulate import fake_weight

MODELS = Path(__file__).resolve().parents[1] / "models"
FEATURES = features(243)[0].numpy()

Int = npt.NDArray[np.integer[Any]]


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


def saturated(x: Int, weight: Int) -> npt.NDArray[np.bool_]:
    """Which pairs ``(out, in // 2)`` vpmaddubsw cuts off for ``x (in,) or (out, in)`` uint8; the last odd one is left
    out."""
    products = x.astype(np.int64) * rows(weight).astype(np.int64)
    products = products[:, : products.shape[1] // 2 * 2]
    sums = products[:, 0::2] + products[:, 1::2]
    return np.asarray(sums != np.clip(sums, -(2**15), 2**15 - 1))


def worst_cases(weight: Int) -> list[Int]:
    """Activations of 255 everywhere, only where weights are positive, and only where they are negative."""
    flat = rows(weight)
    return [
        np.full_like(flat, 255, np.uint8),
        *(np.where(side, 255, 0).astype(np.uint8) for side in (flat > 0, flat < 0)),
    ]


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/reference as make bundle makes it, but with --reduce-range."""
    reference = MODELS / "reference"
    profile = Profile.load(reference / "calibration.profile")
    parts = ("1.self_attn", "1.conv_module", "2.self_attn", "3.conv_module")  # KEEP of the Makefile
    keep = [f"encoder.encoders.{part}" for part in parts]
    plan = observe(load_experiment(reference), profile, keep=keep, reduce_range=True)
    out = tmp_path_factory.mktemp("reduced") / "bundle"
    quantize_checkpoint(reference, plan, out, ConvertOptions(dither=1.0, reencode=True))
    return out


@pytest.fixture(scope="module")
def floats() -> dict[str, npt.NDArray[np.float32]]:
    weights = load_experiment(MODELS / "reference").weights
    return {name.removesuffix(".weight"): value.numpy() for name, value in weights.items() if name.endswith(".weight")}


def test_every_weight_of_the_reference_is_within_64_and_half_a_step_of_the_float(
    reduced: Path, floats: dict[str, npt.NDArray[np.float32]]
) -> None:
    found = int8_weights(reduced)
    assert found.keys() == int8_weights(MODELS / "reference-int8").keys()
    for path, q in found.items():
        weight, integers = rows(floats[path]).astype(np.float64), rows(q).astype(np.int64)
        # Every channel uses its range, the scale is that of the channel: max|w| / 64.
        assert (np.abs(integers).max(axis=1) == 64).all(), path
        step = np.abs(weight).max(axis=1, keepdims=True) / 64
        assert (np.abs(integers * step - weight) <= 0.5001 * step).all(), path


def test_the_scales_in_the_graph_are_those_of_64_steps(
    reduced: Path, floats: dict[str, npt.NDArray[np.float32]]
) -> None:
    """One per output channel of every layer and every expert."""
    checked = 0
    for name in ("encoder", "decoder"):
        graph = onnx.load(reduced / f"{name}.onnx").graph
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            path = node.input[0].removesuffix(".weight")
            if node.op_type == "DequantizeLinear" and path != node.input[0]:
                scale = np.abs(rows(floats[path])).max(axis=1) / 64
                np.testing.assert_allclose(values[node.input[1]], scale, rtol=1e-5)
                assert not values[node.input[2]].any()  # symmetric
                checked += 1
    assert checked == len(int8_weights(reduced)) > 250


def test_vpmaddubsw_never_saturates_on_the_reference(reduced: Path) -> None:
    """It does with the weights that are shipped, which need VNNI."""
    for path, q in int8_weights(reduced).items():
        assert not any(saturated(x, q).any() for x in worst_cases(q)), path
    shipped = int8_weights(MODELS / "reference-int8").values()
    assert sum(saturated(x, q).sum() for q in shipped for x in worst_cases(q)) > 1000


@pytest.mark.parametrize(("limit", "cut"), [(127, True), (65, True), (64, False)])
def test_64_is_the_largest_weight_that_fits(limit: int, cut: bool) -> None:
    """2 * 255 * 64 = 32640 < 2 ** 15 <= 2 * 255 * 65, on both sides of zero."""
    for sign in (1, -1):
        pair = np.full((1, 2), sign * limit, np.int8)
        assert saturated(np.array([255, 255], np.uint8), pair).all() == cut
    weight = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    weight[:, :2] = 5.0
    q, _ = channel_quantize(weight, None, "p", limit=limit)
    assert any(saturated(x, q).any() for x in worst_cases(q)) == cut


@pytest.mark.parametrize("scheme", ["static", "static16", "dynamic"])
def test_every_scheme_of_8_bit_products(pristine: Path, tmp_path: Path, scheme: Precision) -> None:
    plan = (
        widened(observed_plan(pristine, FEATURES))
        if scheme == "static16"
        else observed_plan(pristine, FEATURES, scheme)
    )
    assert not plan.reduce_range and plan.reduced().reduce_range
    for name, wanted, limit in (("full", plan, 127), ("reduced", plan.reduced(), 64)):
        bundle = quantize_checkpoint(pristine, wanted, tmp_path / name)
        assert bundle.manifest.encoder.reduce_range == bundle.manifest.decoder.reduce_range == (limit == 64)
        found = int8_weights(tmp_path / name)
        largest = {path: np.abs(q.astype(int)).max() for path, q in found.items()}
        if scheme == "static16":  # its convolutions are stored in 8 bits and computed in float
            assert [largest.pop(f"encoder.embed.conv.{i}") for i in (0, 2)] == [127, 127]
        assert len(largest) > 20 and set(largest.values()) == {limit}


@pytest.mark.parametrize("scheme", ["weight8", "weight4"])
def test_weights_alone_are_refused(pristine: Path, scheme: str) -> None:
    with pytest.raises(QuantizationError, match=f"--reduce-range: expected --scheme static, .*, found {scheme}"):
        observe(load_experiment(pristine), None, scheme, reduce_range=True)


def test_what_falls_back_to_weights_alone_has_its_full_range() -> None:
    """Their kernel computes in float."""
    convolution = torch.nn.Conv2d(4, 8, 3)
    scale = np.abs(convolution.weight.detach().numpy()).reshape(8, -1).max(axis=1) / np.float32(
        127.5
    )  # as observers say it
    plan = QuantizationPlan("static", {"c": LayerPlan("static16", weight_scale=scale)}).reduced()
    for precision, levels in (("static16", 64), ("weight8", 127)):
        layer = plan.fall_back({"c"}, precision, "tuning").layers["c"]  # type: ignore[arg-type]
        steps = (
            fake_weight("c", convolution, layer).numpy().reshape(8, -1)
            / (scale * {64: 127.5 / 64, 127: 1}[levels])[:, None]
        )
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert (np.rint(np.abs(steps).max(axis=1)) == levels).all()


def test_a_graph_left_in_float_says_nothing(pristine: Path, tmp_path: Path) -> None:
    plan = observe(load_experiment(pristine), None, "dynamic", keep=["decoder"], reduce_range=True)
    manifest = quantize_checkpoint(pristine, plan, tmp_path / "out").manifest
    assert (manifest.encoder.reduce_range, manifest.decoder.reduce_range) == (True, False)
    assert manifest.decoder.scheme == "fp32"


def test_manifests_of_before_have_the_full_range() -> None:
    data = json.loads((MODELS / "reference-int8" / "manifest.json").read_text(encoding="utf-8"))
    for graph in ("encoder", "decoder"):
        data[graph].pop("reduce_range", None)
    manifest = Manifest.from_json(json.dumps(data))
    assert manifest.encoder.reduce_range is False and manifest.decoder.reduce_range is False


def test_the_report_simulates_the_plan_that_the_bundle_has(pristine: Path, tmp_path: Path) -> None:
    experiment = load_experiment(pristine)
    for reduce_range in (False, True):
        plan = observe(experiment, None, "dynamic", reduce_range=reduce_range)
        out = tmp_path / str(reduce_range)
        quantize_checkpoint(pristine, plan, out)
        again = plan_of(Bundle.open(out), experiment, None)
        assert again.reduce_range == reduce_range
        modules = dict(experiment.build().named_modules())
        stored = int8_weights(out)
        for path, q in stored.items():
            weight = fake_weight(path, modules[path], again.layers[path]).numpy()
            step = np.abs(rows(weight)).max(axis=1, keepdims=True) / np.abs(rows(q).astype(int)).max(
                axis=1, keepdims=True
            )
            np.testing.assert_allclose(rows(weight), rows(q) * step, rtol=1e-4, atol=1e-7)


def test_bundled_recordings_are_understood(reduced: Path) -> None:
    """As with the shipped int8 bundle: every word of the six samples but one."""
    recognizer = Recognizer.load(reduced, threads=1)
    wrong = 0
    for sample in read_corpus(MODELS / "reference" / "samples"):
        text = " ".join(result.text for result in recognizer.transcribe(sample.audio)).split()
        wanted = sample.text.split()
        wrong += abs(len(text) - len(wanted)) + sum(a != b for a, b in zip(text, wanted))
    assert wrong <= 1
