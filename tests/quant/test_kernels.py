"""The kernels that engines choose: integer where the plan says so, and an error where they are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_helpers import features
from quant_helpers import observed_plan

from edge.export.convert import ConvertOptions, convert
from edge.export.quantization import Quantization
from edge.runtime import BackendError, Bundle
from quant.kernels import assert_integer, count_kernels
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationError, QuantizationPlan
from quant.schemes.planned import PlannedScheme

FEATURES = features(243)[0].numpy()


@pytest.fixture(scope="module")
def plan(pristine: Path) -> QuantizationPlan:
    return observed_plan(pristine, FEATURES)


def bundle_of(experiment: Path, out: Path, plan: QuantizationPlan, options: ConvertOptions | None = None) -> Bundle:
    """Without the check that ``quantize_checkpoint`` makes."""
    scheme = Quantization(plan.scheme, PlannedScheme(plan), PlannedScheme(plan))
    return convert(experiment, out, options or ConvertOptions(), quantization=scheme)


@pytest.fixture(scope="module")
def static(pristine: Path, plan: QuantizationPlan, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(pristine, tmp_path_factory.mktemp("kernels") / "static", plan)


def layers(plan: QuantizationPlan) -> tuple[int, int, int]:
    """Linear layers of the encoder and of the decoder, convolutions."""
    decoder = sum(path.startswith("decoder.") for path in plan.layers)
    convolutions = sum(".embed.conv." in path for path in plan.layers)
    return len(plan.layers) - decoder - convolutions, decoder, convolutions


def test_every_static_layer_is_an_integer_kernel(static: Bundle, plan: QuantizationPlan) -> None:
    encoder, decoder, convolutions = layers(plan)
    assert (encoder, decoder, convolutions) == (2 * (2 * 8 + 5 + 2) + 2, 2 * (8 + 2 + 1), 2)
    assert count_kernels(static) == {
        "encoder": {"QGemm": encoder, "QLinearConv": convolutions},
        "decoder": {"QGemm": decoder},
    }
    assert_integer(static, plan)


def test_openvino_too(static: Bundle, plan: QuantizationPlan) -> None:
    products = pytest.importorskip("edge.runtime.engines.openvino.products")
    kind = "f32" if products.saturates() else "i8"  # float where the processor's 8-bit sums would be cut off
    encoder, decoder, convolutions = layers(plan)
    counts = count_kernels(static, "openvino")
    routers = 4
    assert counts["decoder"] == {f"FullyConnected {kind}": decoder}
    assert counts["encoder"][f"Convolution {kind}"] >= convolutions  # depthwise convolutions are always float
    assert counts["encoder"][f"FullyConnected {kind}"] == encoder + (routers if kind == "f32" else 0)
    assert kind == "f32" or counts["encoder"]["FullyConnected f32"] == routers


@pytest.mark.parametrize("precision", ["dynamic", "weight8", "weight4"])
def test_other_precisions(pristine: Path, plan: QuantizationPlan, tmp_path: Path, precision: Precision) -> None:
    plan = QuantizationPlan(precision, {path: LayerPlan(precision) for path in plan.layers})
    encoder, decoder, convolutions = layers(plan)
    counts = count_kernels(bundle_of(pristine, tmp_path / "bundle", plan))
    dynamic = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")  # the second where several layers read one input
    kernels = dynamic if precision == "dynamic" else ("MatMulNBits",)
    assert sum(counts["encoder"].pop(kernel) for kernel in kernels) == encoder
    assert sum(counts["decoder"].pop(kernel) for kernel in kernels) == decoder
    assert sum(counts["encoder"].values()) == convolutions and set(counts["encoder"]) <= {"Conv", "FusedConv"}
    assert counts["decoder"] == {}


def test_a_float_bundle_has_no_integer_kernel(tiny_bundle: Path, plan: QuantizationPlan) -> None:
    encoder, decoder, convolutions = layers(plan)
    counts = count_kernels(Bundle.open(tiny_bundle))
    assert sum(counts["decoder"].values()) == decoder and set(counts["decoder"]) <= {"Gemm", "FusedGemm"}
    assert sum(counts["encoder"].values()) == encoder + convolutions
    with pytest.raises(QuantizationError, match=r"found a float kernel \(72 of 72 layers planned static\)"):
        assert_integer(Bundle.open(tiny_bundle), plan)


def test_a_layer_that_stayed_float_is_named(
    pristine: Path, static: Bundle, plan: QuantizationPlan, tmp_path: Path
) -> None:
    path = "encoder.encoders.1.feed_forward.experts.2.w_1"
    bundle = bundle_of(pristine, tmp_path / "bundle", plan.fall_back({path}, "fp32", "test"))
    with pytest.raises(QuantizationError, match=rf"{path}: expected an integer kernel.*found a float kernel \(1 of"):
        assert_integer(bundle, plan)
    typo = dataclasses.replace(plan, layers=plan.layers | {"encoder.nowhere": plan.layers[path]})
    with pytest.raises(QuantizationError, match=r"encoder\.nowhere: .*found no such layer"):
        assert_integer(static, typo)


def test_dequantized_weights_before_float_kernels_are_counted(static: Bundle, tmp_path: Path) -> None:
    """A float bias is enough to lose an integer kernel."""
    model = onnx.load(static.decoder)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.input[2] = "plain"
    rows = next(t for t in model.graph.initializer if t.name == f"{gemm.name.removesuffix('/Gemm')}.weight").dims[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(rows, np.float32), "plain"))
    onnx.save(model, tmp_path / "decoder.onnx")
    (tmp_path / "encoder.onnx").write_bytes(static.encoder.read_bytes())
    counts = count_kernels(Bundle(tmp_path, static.manifest, static.tokens))["decoder"]
    assert counts["QGemm"] == 21 and counts["Gemm"] == 1 and counts["DequantizeLinear -> float"] == 2


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_scale_nobody_measured(static: Bundle, plan: QuantizationPlan, which: str) -> None:
    path = "encoder.embed.conv.2"
    change: dict[str, Any] = {which: ActivationScale(1.0, 0)}
    layers = plan.layers | {path: dataclasses.replace(plan.layers[path], **change)}
    with pytest.raises(QuantizationError, match=rf"{path}: expected an {which} scale from calibration, found 1.0"):
        assert_integer(static, dataclasses.replace(plan, layers=layers))


def test_layers_that_are_float_by_design(pristine: Path, plan: QuantizationPlan, tmp_path: Path) -> None:
    """A convolution without an output scale."""
    layers = {path: dataclasses.replace(layer, output=None) for path, layer in plan.layers.items()}
    plan = dataclasses.replace(plan, layers=layers)
    bundle = bundle_of(pristine, tmp_path / "bundle", plan)
    assert_integer(bundle, plan)
    counts = count_kernels(bundle)["encoder"]
    assert counts["QGemm"] == 48 and "QLinearConv" not in counts


def test_unknown_engine(static: Bundle) -> None:
    with pytest.raises(BackendError, match="engine: expected onnxruntime or openvino, found 'tensorrt'"):
        count_kernels(static, "tensorrt")
