"""Routing agreement: exact for a bundle with itself, equal to torch for a disturbed router, and a silent observer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from model_helpers import MEL
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.corpus import Utterance
from edge.export.convert import convert
from edge.export.save import save_graph
from edge.model.checkpoint import load_experiment
from edge.model.feedforward import MoeFeedForward
from edge.model.u2pp import U2pp
from edge.runtime import Bundle, BundleError, Manifest, write_bundle
from edge.runtime.audio import AudioError
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import initial_state, load_backend
from edge.runtime.engines.config import EngineConfig
from edge.runtime.features import recording_features
from quant.measure.agreement import Agreement, kl_divergence, measure_agreement
from quant.measure.routing import RoutedEncoder, expose_routing, modes
from quant.report.decode import decode

LAYER = "encoder.encoders.0.feed_forward"


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Three recordings of short tones, loud and soft, in a little noise; one at another rate."""
    folder, found = tmp_path_factory.mktemp("audio"), []
    for i, (seconds, rate) in enumerate(((2.0, 16000), (1.1, 16000), (1.5, 8000))):
        rng = np.random.default_rng(i)
        size, step = int(seconds * rate), rate // 8
        pitch, level = (
            np.repeat(10 ** rng.uniform(a, b, size // step + 1), step)[:size] for a, b in ((2, 3.5), (-4, 0))
        )
        tones = 0.5 * level * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + rng.normal(0, 1e-4, size)
        path = folder / f"{i}.wav"
        soundfile.write(path, tones, rate)
        found.append(Utterance(path.name, path))
    return found


def disturbed(bundle: Path, out: Path, noise: NDArray[np.float32]) -> Path:
    """The bundle with ``noise`` added to the router of LAYER in its graph; the manifest still names the checkpoint."""

    def build(folder: Path) -> Manifest:
        opened = Bundle.open(bundle)
        for name in ("decoder.onnx", "tokens.txt"):
            shutil.copy(bundle / name, folder / name)
        model = onnx.load(str(opened.encoder))
        tensor = next(t for t in model.graph.initializer if t.name == f"{LAYER}.gate.weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + noise, tensor.name))
        save_graph(model, folder / "encoder.onnx")
        return opened.manifest

    return write_bundle(out, build).directory


def by_torch(model: U2pp, features: NDArray[np.float32], chunk: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(layers, frames, k) by ``MoeFeedForward.route`` on what every encoder layer is given; CTC (frames, vocab)."""
    routes: dict[str, list[torch.Tensor]] = {}
    handles = []
    for name, module in model.encoder.named_modules():
        if isinstance(module, MoeFeedForward):
            rows = routes.setdefault(f"encoder.{name}", [])

            def note(layer: torch.nn.Module, inputs: tuple[torch.Tensor], rows: list[torch.Tensor] = rows) -> None:
                assert isinstance(layer, MoeFeedForward)
                rows.append(layer.route(inputs[0].reshape(-1, inputs[0].size(-1)))[0])

            handles.append(module.register_forward_pre_hook(note))
    feats = torch.from_numpy(features)[None]
    with torch.inference_mode():
        if chunk > 0:
            memory = model.encoder.forward_chunk_by_chunk(feats, chunk)
        else:
            memory, _ = model.encoder(feats, torch.tensor([len(features)]))
        log_probs = model.ctc(memory)[0].numpy()
    for handle in handles:
        handle.remove()
    order = [f"encoder.encoders.{i}.{n}" for i in range(2) for n in ("feed_forward_macaron", "feed_forward")]
    return np.stack([torch.cat(routes[name]).numpy() for name in order]), log_probs


def test_a_bundle_agrees_with_itself_exactly(tiny_bundle: Path, utterances: list[Utterance]) -> None:
    seen = []
    found = measure_agreement(tiny_bundle, tiny_bundle, utterances, threads=1, progress=lambda *a: seen.append(a))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.utterances == 3 and found.seconds == pytest.approx(4.6)
    assert [m.mode for m in found.modes] == ["streaming", "full"] and found.modes[0].chunk == 16
    for mode in found.modes:
        assert [layer.layer for layer in mode.layers] == list(Bundle.open(tiny_bundle).manifest.moe.layers)
        for layer in mode.layers:
            assert (layer.set_same, layer.best_same, layer.near_ties, layer.flipped_gap) == (1.0, 1.0, None, None)
            assert layer.frames == mode.log_probs.frames > 100 and layer.median_gap is not None and layer.median_gap > 0
        error = mode.log_probs
        assert (error.largest, error.mean, error.kl_largest, error.best_same) == (0.0, 0.0, 0.0, 1.0)
    assert found.worst == 1.0


def test_a_disturbed_router_is_found_as_torch_finds_it(
    pristine: Path, tiny_bundle: Path, utterances: list[Utterance], tmp_path: Path
) -> None:
    experiment = load_experiment(pristine)
    shape = experiment.weights[f"{LAYER}.gate.weight"].shape
    noise = np.random.default_rng(3).normal(0, 1.0, tuple(shape)).astype(np.float32)
    other = disturbed(tiny_bundle, tmp_path / "disturbed", noise)
    found = measure_agreement(tiny_bundle, other, utterances, threads=1)
    weights = dict(experiment.weights)
    weights[f"{LAYER}.gate.weight"] = weights[f"{LAYER}.gate.weight"] + torch.from_numpy(noise)
    models = experiment.build(), dataclasses.replace(experiment, weights=weights).build()
    options = Bundle.open(tiny_bundle).manifest.features
    features = [recording_features(u.audio, options)[0] for u in utterances]
    for mode in found.modes:
        results = [[by_torch(model, f, mode.chunk) for f in features] for model in models]
        want, have = (np.concatenate([routes for routes, _ in result], axis=1) for result in results)
        log_probs, others = (np.concatenate([scores for _, scores in result]) for result in results)
        same = (np.sort(want, -1) == np.sort(have, -1)).all(-1).mean(-1)
        best = (want[..., 0] == have[..., 0]).mean(-1)
        # float32 in torch and in ONNX Runtime may part on an exact tie: one frame at most
        one = 1.01 / want.shape[1]
        assert np.abs(np.array([layer.set_same for layer in mode.layers]) - same).max() <= one
        assert np.abs(np.array([layer.best_same for layer in mode.layers]) - best).max() <= one
        assert [layer.set_same for layer in mode.layers][:1] == [1.0]  # before the disturbed router
        assert mode.layers[1].set_same < 0.95 and mode.set_same == pytest.approx(same.mean(), abs=one)
        assert mode.layers[1].flipped_gap is not None and mode.layers[1].median_gap is not None
        assert mode.layers[1].flipped_gap < mode.layers[1].median_gap  # near-ties flip first
        largest = float(np.abs(log_probs - others).max())
        assert largest > 1e-3 and mode.log_probs.largest == pytest.approx(largest, abs=1e-4)
    assert found.worst == min(mode.set_same for mode in found.modes)


def test_exposing_routing_changes_no_result(tiny_bundle: Path, utterances: list[Utterance]) -> None:
    bundle = Bundle.open(tiny_bundle)
    m = bundle.manifest
    features = recording_features(utterances[0].audio, m.features)[0]
    backend = load_backend(bundle, EngineConfig(threads=1))
    with RoutedEncoder(bundle, threads=1) as encoder:
        for _, chunk in modes(m):
            routed = encoder.run(features, chunk)
            chunker = FrameChunker(m.stream, chunk if chunk > 0 else 5000, MEL)
            chunker.push(features)
            state, outputs, counts = initial_state(m.caches, -1), [], np.zeros((4, 4), np.int64)
            while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
                step = backend.step(window, state)
                state = step.state
                outputs.append(step.log_probs)
                assert step.expert_counts is not None
                counts += step.expert_counts
            assert np.array_equal(np.concatenate(outputs), routed.log_probs)
            ours = [np.bincount(layer.reshape(-1), minlength=4) for layer in routed.chosen]
            assert np.array_equal(counts, ours)
            best = np.argsort(-routed.logits, axis=-1, kind="stable")[..., :2]
            assert np.array_equal(best, routed.chosen)


def test_external_data_is_found(tiny_bundle: Path, utterances: list[Utterance], tmp_path: Path) -> None:
    def build(folder: Path) -> Manifest:
        opened = Bundle.open(tiny_bundle)
        for name in ("decoder.onnx", "tokens.txt"):
            shutil.copy(tiny_bundle / name, folder / name)
        save_graph(onnx.load(str(opened.encoder)), folder / "encoder.onnx", external_above=0)
        return dataclasses.replace(opened.manifest, encoder=dataclasses.replace(opened.manifest.encoder, bytes=0))

    other = write_bundle(tmp_path / "external", build).directory
    assert (other / "encoder.onnx.data").exists()
    assert measure_agreement(tiny_bundle, other, utterances, limit=1, threads=1).modes[0].log_probs.largest == 0.0


def test_json_and_back(tiny_bundle: Path, utterances: list[Utterance]) -> None:
    found = measure_agreement(tiny_bundle, tiny_bundle, utterances, limit=1, threads=1)
    assert found.utterances == 1
    assert decode(Agreement, json.loads(json.dumps(found.to_dict(), allow_nan=False)), "") == found


def test_dense_model_has_log_prob_error_and_no_layers(
    make_experiment: Callable[..., Path], utterances: list[Utterance], tmp_path: Path
) -> None:
    dense = make_experiment(encoder_conf={"mlp_type": "position_wise_feed_forward"})
    bundle = convert(dense, tmp_path / "dense").directory
    found = measure_agreement(bundle, bundle, utterances, limit=1, threads=1)
    assert found.worst == 1.0 and not any(mode.layers for mode in found.modes)
    assert found.modes[0].log_probs.frames > 0


def test_kl_divergence() -> None:
    p = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    q = np.log(np.array([[0.5, 0.5], [0.5, 0.5]]))
    assert kl_divergence(p, q) == pytest.approx([0.0, 0.25 * np.log(0.5) + 0.75 * np.log(1.5)])


def test_clear_errors(
    tiny_bundle: Path, make_experiment: Callable[..., Path], utterances: list[Utterance], tmp_path: Path
) -> None:
    stranger = convert(make_experiment(seed=1), tmp_path / "stranger").directory
    with pytest.raises(BundleError, match=r"same checkpoint.*source\.sha256"):
        measure_agreement(tiny_bundle, stranger, utterances)
    with pytest.raises(BundleError, match=r"router.*nowhere\.gate\.weight"):
        expose_routing(onnx.load(str(tiny_bundle / "encoder.onnx")), ["nowhere"])
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(800, np.float32), 16000)
    with pytest.raises(BundleError, match="only shorter ones"):
        measure_agreement(tiny_bundle, tiny_bundle, [Utterance("short", short)], threads=1)
    with pytest.raises(AudioError, match="no such audio file"):
        measure_agreement(tiny_bundle, tiny_bundle, [Utterance("none", tmp_path / "none.wav")], threads=1)
