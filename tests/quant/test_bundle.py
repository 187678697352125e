"""Quantized bundles: whole or absent, small, and close to the checkpoint in every mode."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import Float32
from model_helpers import features
from places import ROOT
from quant_helpers import observed_plan

from edge.export.convert import ConvertOptions
from edge.export.decoder import decoder_graph
from edge.export.encoder import encoder_graph
from edge.export.options import ExportError
from edge.export.parity import parity_features
from edge.export.save import save_graph
from edge.model.checkpoint import load_experiment
from edge.runtime import Bundle, Recognizer
from edge.runtime.engines.base import initial_state
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.openvino.core import Compilation, compile_model
from quant.bundle import quantize_checkpoint
from quant.kernels import count_kernels
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationError, QuantizationPlan
from recipes.random_model import Sizes, write_model

FEATURES = features(243)[0].numpy()


def log_probs(bundle: Path, feats: Float32 = FEATURES) -> Float32:
    recognizer = Recognizer.load(bundle, EngineConfig(threads=1))
    return recognizer.backend.step(feats, initial_state(recognizer.manifest.caches, -1)).log_probs


def relative(have: Float32, want: Float32) -> float:
    return float(np.linalg.norm(have - want) / np.linalg.norm(want))


@pytest.mark.parametrize(
    ("precision", "most"), [("static", 0.1), ("dynamic", 0.1), ("weight8", 0.05), ("weight4", 0.6)]
)
def test_quantized_bundle(pristine: Path, tiny_bundle: Path, tmp_path: Path, precision: Precision, most: float) -> None:
    plan = observed_plan(pristine, FEATURES, precision)
    lines: list[str] = []
    options = ConvertOptions(name="tiny", dither=1.0)
    bundle = quantize_checkpoint(pristine, plan, tmp_path / "out", options, {"utterances": 3}, lines.append)
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest == bundle.manifest
    assert manifest.name == "tiny" and manifest.features.dither == 1.0
    assert (manifest.encoder.scheme, manifest.decoder.scheme) == (precision, precision)
    assert manifest.encoder.storage == "fp16"
    assert manifest.calibration == {"layers": {precision: len(plan.layers)}, "utterances": 3}
    assert {"full", "chunk_16_-1", "chunk_8_2", "decoder", "reverse_decoder"} == manifest.parity.keys()
    assert 1e-3 < manifest.parity["full"] < 20
    assert "checking that static layers run in integers" in lines
    assert 1e-4 < relative(log_probs(tmp_path / "out"), log_probs(tiny_bundle)) < most
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_only_what_the_plan_names(pristine: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """One expert of the encoder: the decoder graph is the float one, the encoder differs by that expert."""
    plan = observed_plan(pristine, FEATURES)
    one = {k: v for k, v in plan.layers.items() if ".0.feed_forward.experts.1." in k and k.startswith("encoder.")}
    bundle = quantize_checkpoint(pristine, QuantizationPlan("mixed", one), tmp_path / "out")
    assert (bundle.manifest.encoder.scheme, bundle.manifest.decoder.scheme) == ("mixed", "fp32")
    assert count_kernels(bundle)["encoder"]["QGemm"] == 2
    assert "QGemm" not in count_kernels(bundle)["decoder"]
    assert 0 < relative(log_probs(tmp_path / "out"), log_probs(tiny_bundle)) < 0.02
    assert bundle.manifest.parity["decoder"] < 0.01


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (LayerPlan("static", ActivationScale(1.0, 0)), "found 1.0 with zero point 0"),
        (LayerPlan("static"), "expected the scale of its input for static int8, found none"),
        (LayerPlan("static", ActivationScale(0.1, 0), weight_scale=np.ones(2, np.float32)), "expected 12 positive"),
    ],
)
def test_nothing_is_written_when_it_cannot_be(pristine: Path, tmp_path: Path, layer: LayerPlan, message: str) -> None:
    plan = observed_plan(pristine, FEATURES)
    plan = dataclasses.replace(plan, layers=plan.layers | {"ctc.ctc_lo": layer})
    with pytest.raises(QuantizationError, match=f"ctc.ctc_lo: .*{message}"):
        quantize_checkpoint(pristine, plan, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint_is_refused(experiment: Path, tmp_path: Path) -> None:
    """Differences are recorded, but NaN is not a difference."""
    import torch

    plan = observed_plan(experiment, FEATURES, "dynamic")
    state = torch.load(experiment / "final.pt", weights_only=True)
    state["decoder.right_decoder.after_norm.weight"].fill_(3e38)
    torch.save(state, experiment / "final.pt")
    with pytest.raises(ExportError, match="reverse_decoder: ONNX Runtime differs from torch by nan"):
        quantize_checkpoint(experiment, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_openvino_computes_the_bundle(pristine: Path, tmp_path: Path) -> None:
    """One artefact, two engines: in float32 inference precision they differ by single roundings."""
    pytest.importorskip("openvino")
    quantize_checkpoint(pristine, observed_plan(pristine, FEATURES), tmp_path / "out")
    bundle = Bundle.open(tmp_path / "out")
    caches = bundle.manifest.caches
    state = initial_state(caches, -1)
    frames = bundle.manifest.stream.encoder_frames(len(FEATURES))
    inputs = {
        "chunk": FEATURES[None],
        "offset": np.array(0, np.int64),
        "att_cache": state.att_cache,
        "cnn_cache": state.cnn_cache,
        "att_mask": np.ones((1, 1, frames), np.bool_),
    }
    compiled = compile_model(str(bundle.encoder), Compilation())
    have, want = compiled(inputs)["log_probs"][0], log_probs(tmp_path / "out")
    # A number near the middle between two integers may go either way; with 16 channels such a step is felt.
    assert relative(have, want) < 0.02


def test_reference_is_small(tmp_path: Path) -> None:
    """The graphs of models/reference in static int8 against the same in float32."""
    folder = ROOT / "models" / "reference"
    experiment = load_experiment(folder)
    feats = parity_features(next(iter(sorted((folder / "samples").glob("*.flac")))), experiment.config.features)
    plan = observed_plan(folder, feats)
    bundle = quantize_checkpoint(folder, plan, tmp_path / "int8")
    weights = {k: v.numpy() for k, v in experiment.weights.items()}
    for name, write in (("encoder", encoder_graph), ("decoder", decoder_graph)):
        save_graph(write(experiment.config, weights), tmp_path / "fp32" / f"{name}.onnx")
    small, large = (sum(p.stat().st_size for p in (tmp_path / n).iterdir()) for n in ("int8", "fp32"))
    assert small <= 0.30 * large
    routers = [t for t in onnx.load(bundle.encoder).graph.initializer if t.name.endswith(".gate.weight")]
    assert len(routers) == 12 and {t.data_type for t in routers} == {onnx.TensorProto.FLOAT}


def test_random_model(tmp_path: Path) -> None:
    """Activations of a deep random model stay within a few units, and most of its experts work."""
    sizes = Sizes(dim=64, hidden=128, heads=2, blocks=8, experts=8, decoder_blocks=1, decoder_experts=4, tokens=50)
    parameters = write_model(tmp_path / "random", sizes)
    experiment = load_experiment(tmp_path / "random")
    assert parameters == experiment.parameters() + 160  # the statistics of the filter bank
    assert (tmp_path / "random" / "final.pt").stat().st_size < 2.2 * parameters + 200_000
    assert experiment.config.decoder.n_expert == 4 and experiment.config.encoder.why_not_streaming() == ""
    feats = 10 + 4 * np.random.default_rng(0).standard_normal((603, 80)).astype(np.float32)
    plan = observed_plan(tmp_path / "random", feats)
    inputs = [layer.input for layer in plan.layers.values() if layer.input is not None]
    assert all(scale.low > -30 and scale.high < 30 for scale in inputs)
    borrowed = [path for path, layer in plan.layers.items() if layer.borrowed and path.startswith("encoder.")]
    assert len(borrowed) <= 0.25 * 2 * 16 * 8
    with pytest.raises(FileExistsError, match="expected a new directory"):
        write_model(tmp_path / "random", sizes)
