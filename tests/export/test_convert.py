"""Conversion: one bundle computes what torch computes, for every kind of model and chunk, or there is no bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from model_helpers import MEL, features

from edge.export.convert import ConvertOptions, convert
from edge.export.options import ExportError, ExportOptions
from edge.model.checkpoint import load_experiment
from edge.model.train_yaml import ConfigError
from edge.runtime import AudioError, Bundle, BundleError, DecodeOptions, OptionsError, Recognizer
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import initial_state
from edge.runtime.engines.config import EngineConfig

Float32 = npt.NDArray[np.float32]
MakeExperiment = Callable[..., Path]
TOLERANCE = 1e-4  # of log-probabilities; typical: 1e-6
DENSE = {"mlp_type": "position_wise_feed_forward"}


def stream(recognizer: Recognizer, feats: Float32, chunk: int, left: int) -> tuple[Float32, npt.NDArray[np.int64]]:
    """CTC log-probabilities of feature frames, chunk by chunk; and the frames routed to each expert."""
    manifest = recognizer.manifest
    state = initial_state(manifest.caches, chunk * left if left >= 0 else -1)
    chunker = FrameChunker(manifest.stream, chunk, MEL)
    chunker.push(feats)
    outputs, counts = [], np.zeros((len(manifest.moe.layers), manifest.moe.experts), np.int64)
    while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
        step = recognizer.backend.step(window, state)
        state = step.state
        outputs.append(step.log_probs)
        if step.expert_counts is not None:
            counts += step.expert_counts
    return np.concatenate(outputs), counts


def with_torch(experiment: Path, feats: Float32, chunk: int = -1, left: int = -1) -> Float32:
    """The same from torch: one pass under the chunk mask."""
    model = load_experiment(experiment).build()
    with torch.inference_mode():
        memory, _ = model.encoder(torch.from_numpy(feats)[None], torch.tensor([len(feats)]), chunk, left)
        return np.asarray(model.ctc(memory)[0])


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


SPREAD: dict[str, dict[str, Any]] = {
    "conv2d6_batch_norm": {"encoder_conf": {"input_layer": "conv2d6", "cnn_module_norm": "batch_norm"}},
    "conv2d8_relu_3_of_5": {
        "encoder_conf": {
            "input_layer": "conv2d8", "activation_type": "relu", "num_blocks": 1,
            "n_expert": 5, "n_expert_activated": 3,
        }
    },
    "dense_absolute_gelu": {
        "encoder_conf": {
            **DENSE, "pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn", "activation_type": "gelu",
        },
        "decoder_conf": {"mlp_type": "moe", "n_expert": 4},
    },
    "post_norm_absolute_and_relative": {"encoder_conf": {"normalize_before": False, "pos_enc_layer_type": "abs_pos"}},
    "no_macaron_no_convolution": {"encoder_conf": {"macaron_style": False, "use_cnn_module": False}},
    "no_biases_one_expert": {
        "encoder_conf": {
            "query_bias": False, "key_bias": False, "value_bias": False, "conv_bias": False, "mlp_bias": False,
            "n_expert_activated": 1,
        },
        "decoder": "transformer",
        "decoder_conf": {"mlp_bias": False, "src_query_bias": False, "src_key_bias": False, "normalize_before": False},
    },
    "transformer_moe": {"encoder": "transformer", "decoder": "transformer"},
    "transformer_conv2d6_dense": {"encoder": "transformer", "encoder_conf": {**DENSE, "input_layer": "conv2d6"}},
    "static_chunk": {"encoder_conf": {"use_dynamic_chunk": False, "static_chunk_size": 5}},
    "two_tokens_no_cmvn": {
        "output_dim": 2, "cmvn": None, "tokenizer_conf": {"special_tokens": {"<sos>": 1, "<eos>": 1}},
        "encoder_conf": {"output_size": 15, "attention_heads": 3}, "decoder_conf": {"attention_heads": 5},
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", SPREAD.values(), ids=SPREAD)
def test_every_kind_of_model(make_experiment: MakeExperiment, tmp_path: Path, settings: dict[str, Any]) -> None:
    experiment = make_experiment(**settings)
    bundle = convert(experiment, tmp_path / "bundle")
    assert {"chunk_16_-1", "chunk_8_2", "decoder"} <= bundle.manifest.parity.keys()
    assert max(bundle.manifest.parity.values()) < TOLERANCE
    recognizer = Recognizer.load(tmp_path / "bundle", EngineConfig(threads=1))
    feats = features(243)[0].numpy()
    have, counts = stream(recognizer, feats, 5, 2)
    np.testing.assert_allclose(have, with_torch(experiment, feats, 5, 2), atol=TOLERANCE, rtol=0)
    e = load_experiment(experiment).config.encoder
    if e.mlp_type == "moe":
        assert (counts.sum(1) == len(have) * e.n_expert_activated).all()


@pytest.mark.parametrize("kind", ["conv2d", "conv2d6"])
def test_one_graph_serves_every_chunk(
    make_experiment: MakeExperiment, pristine: Path, tiny_bundle: Path, tmp_path: Path, kind: str
) -> None:
    """The same two files at chunks of 4, 8, 16, 25 frames and at full context, on inputs that use other experts."""
    experiment, folder = pristine, tiny_bundle
    if kind != "conv2d":
        experiment, folder = make_experiment(encoder_conf={"input_layer": kind}), tmp_path / "bundle"
        convert(experiment, folder)
    recognizer = Recognizer.load(folder, EngineConfig(threads=1))
    routes = []
    for feats in (features(431, seed=1)[0].numpy(), features(431, seed=2)[0].numpy() + 2, features(97)[0].numpy() - 3):
        for chunk, left in ((4, -1), (4, 3), (8, 2), (16, 4), (25, 0), (1000, -1)):
            have, counts = stream(recognizer, feats, chunk, left)
            mode = (chunk, left) if chunk < 1000 else (-1, -1)
            np.testing.assert_allclose(have, with_torch(experiment, feats, *mode), atol=TOLERANCE, rtol=0)
        routes.append(counts / counts.sum(1, keepdims=True))
    assert np.abs(routes[0] - routes[1]).max() > 0.2 and np.abs(routes[1] - routes[2]).max() > 0.2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"causal": False, "cnn_module_norm": "batch_norm"}, "its convolution is not causal"),
        ({"use_dynamic_chunk": False}, "it was trained without chunk masks"),
    ],
)
def test_full_context_only(
    make_experiment: MakeExperiment, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    experiment, lines = make_experiment(encoder_conf=settings), list[str]()
    bundle = convert(experiment, tmp_path / "bundle", report=lines.append)
    assert any(line.startswith("full context only: ") and reason in line for line in lines)
    assert not bundle.manifest.stream.streaming and reason in bundle.manifest.stream.why_not_streaming
    assert set(bundle.manifest.parity) == {"full", "decoder", "reverse_decoder"}
    recognizer = Recognizer.load(tmp_path / "bundle", EngineConfig(threads=1))
    for options in (DecodeOptions(), DecodeOptions(chunk=16), DecodeOptions(chunk_ms=640, left_chunks=4)):
        with pytest.raises(OptionsError, match=f"this model cannot stream: {reason}.*--full-context"):
            recognizer.stream(options)
    feats = features(243)[0].numpy()
    np.testing.assert_allclose(stream(recognizer, feats, 1000, -1)[0], with_torch(experiment, feats), atol=TOLERANCE)
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    results = list(recognizer.transcribe(samples, 16000, DecodeOptions(full_context=True)))
    assert len(results) == 1 and results[0].is_final


def test_a_static_chunk_is_the_only_one(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(encoder_conf={"use_dynamic_chunk": False, "static_chunk_size": 5})
    assert convert(experiment, tmp_path / "bundle").manifest.stream.static_chunk == 5
    recognizer = Recognizer.load(tmp_path / "bundle", EngineConfig(threads=1))
    assert recognizer.stream().plan.chunk == 5
    for options in (DecodeOptions(chunk=16), DecodeOptions(full_context=True)):
        with pytest.raises(OptionsError, match=r"supported: chunk 5 \(200 ms\)"):
            recognizer.stream(options)


def test_the_manifest_tells_the_truth(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(
        decoder="transformer", encoder_conf={"input_layer": "conv2d8", "macaron_style": False, "cnn_module_kernel": 7}
    )
    manifest = convert(experiment, tmp_path / "bundle", ConvertOptions(name="tiny")).manifest
    assert manifest.name == "tiny"
    assert manifest.source.sha256 == hashlib.sha256((experiment / "final.pt").read_bytes()).hexdigest()
    assert manifest.source.parameters == sum(p.numel() for p in load_experiment(experiment).build().parameters())
    assert (manifest.stream.subsampling, manifest.stream.right_context, manifest.stream.max_chunk) == (8, 14, 12)
    assert (manifest.caches.heads, manifest.caches.head_dim, manifest.caches.conv_context) == (2, 8, 6)
    assert manifest.moe.layers == ("encoder.encoders.0.feed_forward", "encoder.encoders.1.feed_forward")
    assert (manifest.moe.experts, manifest.moe.active) == (4, 2)
    assert (manifest.tokens.blank, manifest.tokens.sos, manifest.tokens.eos, manifest.tokens.unk) == (0, 2, 2, 1)
    assert manifest.rescoring.bidirectional is False and manifest.rescoring.reverse_weight == 0.0
    assert (tmp_path / "bundle/tokens.txt").read_text("utf-8") == (experiment / "units.txt").read_text("utf-8")
    assert manifest.model["encoder"]["cnn_module_kernel"] == 7
    on_disk = json.loads((tmp_path / "bundle/manifest.json").read_text("utf-8"))
    assert on_disk["parity"] == manifest.parity and on_disk["tools"].keys() == manifest.tools.keys()
    files = {p.name for p in (tmp_path / "bundle").iterdir()}
    assert (
        files
        == {"manifest.json", "encoder.onnx", "decoder.onnx", "tokens.txt"}
        == {*on_disk["checksums"], "manifest.json"}
    )


def test_fp16_storage(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    """Half the size, and the same function as torch with rounded weights; what fp16 cannot hold stays fp32."""
    experiment = make_experiment(encoder_conf={"output_size": 64, "linear_units": 2048, **DENSE})
    half = ConvertOptions(ExportOptions(storage="fp16"), overwrite=True)
    small, large = (
        convert(experiment, tmp_path / "fp16", half).manifest,
        convert(experiment, tmp_path / "fp32").manifest,
    )
    assert (small.encoder.storage, large.encoder.storage) == ("fp16", "fp32")
    assert small.encoder.bytes < 0.7 * large.encoder.bytes  # the rest is mostly the position table
    assert max(small.parity.values()) < TOLERANCE  # torch has the same rounded weights
    feats = features(243)[0].numpy()
    have, _ = stream(Recognizer.load(tmp_path / "fp16", EngineConfig(threads=1)), feats, 16, -1)
    assert 1e-5 < np.abs(have - with_torch(experiment, feats, 16, -1)).max() < 0.1

    state = torch.load(experiment / "final.pt", weights_only=True)
    state["encoder.encoders.0.feed_forward.w_1.weight"][0, 0] = 1e5
    torch.save(state, experiment / "final.pt")
    parity = convert(experiment, tmp_path / "fp16", half).manifest.parity
    assert max(parity.values()) < 10 * TOLERANCE


def test_bundles_are_not_overwritten_by_accident(
    pristine: Path, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    convert(pristine, out)
    before = tree(out)
    with pytest.raises(BundleError, match="a bundle is already there"):
        convert(pristine, out)
    assert tree(out) == before
    other = make_experiment(seed=1)
    assert convert(other, out, ConvertOptions(overwrite=True)).manifest.source.sha256 in tree(other).values()
    assert tree(out) != before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    # A folder of other files is never replaced, and neither is the experiment itself.
    for folder in (tmp_path, pristine):
        before = tree(folder)
        with pytest.raises(BundleError, match="expected a bundle or nothing, found other files"):
            convert(pristine, folder, ConvertOptions(overwrite=True))
        assert tree(folder) == before


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_written_when_the_graphs_differ(pristine: Path, tmp_path: Path, there: bool) -> None:
    """No difference is small enough for a tolerance of 0, so this conversion must fail at its last step."""
    out = tmp_path / "bundle"
    before = tree(convert(pristine, out).directory) if there else {}
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"ONNX Runtime differs from torch by .*; nothing was written"):
        convert(pristine, out, ConvertOptions(overwrite=True, tolerance=0.0), lines.append)
    assert lines[-1].startswith("largest differences: full ")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"] * there
    if there:
        assert tree(out) == before
        Bundle.open(out)


def test_a_decoder_of_nan_is_not_parity(experiment: Path, tmp_path: Path) -> None:
    """NaN on both sides is no agreement, wherever it appears."""
    state = torch.load(experiment / "final.pt", weights_only=True)
    state["decoder.right_decoder.output_layer.weight"].fill_(3e38)
    torch.save(state, experiment / "final.pt")
    with pytest.raises(ExportError, match="reverse_decoder: ONNX Runtime differs from torch by nan"):
        convert(experiment, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_speech_for_the_parity_check(pristine: Path, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", list[str]()
    noise = np.random.default_rng(0).normal(0, 0.1, 44100).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", noise[:300], 44100)  # less than one feature frame: repeated
    parity = convert(pristine, out, ConvertOptions(audio=tmp_path / "short.wav")).manifest.parity
    assert parity != convert(pristine, out, ConvertOptions(overwrite=True)).manifest.parity
    for name, samples in {
        "nan": np.full(999, np.nan),
        "none": noise[:0],
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
        with pytest.raises(AudioError):
            convert(pristine, out, ConvertOptions(overwrite=True, audio=tmp_path / f"{name}.wav"), lines.append)
    # Features the extractor cannot make.
    dataset = {"resample_conf": {"resample_rate": 4000}, "fbank_conf": {"num_mel_bins": 80}}
    with pytest.raises(ConfigError, match=r"fbank_conf: .*num_mel_bins"):
        convert(make_experiment(input_dim=80, dataset_conf=dataset), tmp_path / "other", report=lines.append)
    assert not lines, "audio and features are checked before the graphs are written"
