"""The graph of fixed shapes for Intel GPUs, run on OpenVINO's CPU device, and the way back to the CPU.

No GPU was available. Everything but the device itself is real here: the graph, the windows, the comparison. What a
device may do wrong is injected where a device would do it: when it compiles, computes, or computes wrongly.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
from openvino_helpers import SAMPLES, backend, bundle_dir, fbank, need_openvino, steps, windows

from edge.runtime import BackendError, Bundle, DecodeOptions, Recognizer, load_audio
from edge.runtime.engines.base import initial_state
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.openvino.core import Compilation, compile_model, core
from edge.runtime.engines.openvino.gpu import StaticBackend
from edge.runtime.engines.openvino.static_graph import make_static

ONE = DecodeOptions(endpoint=None)


@pytest.fixture(autouse=True)
def _needs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_openvino()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


class Watched:
    """``compile_model`` that counts, and may fail or damage."""

    def __init__(self, fail: str = "", damage: Any = None) -> None:
        self.compiled: list[dict[str, Any]] = []
        self.fail, self.damage = fail, damage

    def __call__(self, model: Any, how: Compilation) -> Any:
        if self.fail:
            raise BackendError(self.fail)
        if self.damage:
            self.damage(model)
        self.compiled.append({port.any_name: list(port.get_shape()) for port in model.inputs})
        return compile_model(model, dataclasses.replace(how, device="CPU"))


def static(scheme: str = "fp32", watched: Watched | None = None) -> StaticBackend:
    """The path of a GPU, on the CPU."""
    cpu: Any = backend(scheme, "openvino")
    return StaticBackend(Bundle.open(bundle_dir(scheme)), cpu, "CPU", watched or Watched())


@pytest.mark.parametrize(("chunk", "left"), [(16, 64), (8, -1), (4, 0), (16, 30)])
def test_the_same_as_the_dynamic_graph(chunk: int, left: int) -> None:
    """While the window fills, when it is full, and in the last, shorter chunk."""
    watched = Watched()
    engine = static("fp32", watched)
    engine.prepare(chunk, left)
    parts = windows(np.concatenate([fbank(SAMPLES[1])] * 2), chunk)
    assert len(parts) * chunk > max(left, 30) + chunk
    dynamic, fixed = steps(backend("fp32", "openvino"), parts, left), steps(engine, parts, left)
    assert engine.trouble == "" and len(watched.compiled) == 1
    assert watched.compiled[0]["chunk"] == [1, (chunk - 1) * 4 + 7, 80]
    for a, b in zip(dynamic, fixed):
        np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-4)
        np.testing.assert_allclose(b.encoder_out, a.encoder_out, atol=1e-4)
        assert b.state.att_cache.shape == a.state.att_cache.shape
        np.testing.assert_allclose(b.state.att_cache, a.state.att_cache, atol=1e-4)
        np.testing.assert_allclose(b.state.cnn_cache, a.state.cnn_cache, atol=1e-4)
        np.testing.assert_array_equal(b.expert_counts, a.expert_counts)


def test_int8() -> None:
    engine = static("int8")
    engine.prepare(16, 64)
    parts = windows(fbank(SAMPLES[0]))
    assert engine.trouble == ""
    for part, step in zip(parts, steps(backend("int8", "openvino"), parts, 64)):
        fixed = engine.step(part, step.state)
        again = backend("int8", "openvino").step(part, step.state)
        assert np.linalg.norm(fixed.encoder_out - again.encoder_out) < 0.1 * np.linalg.norm(again.encoder_out)


def test_one_active_expert_and_absolute_positions(make_experiment: Any, tmp_path: Any) -> None:
    from edge.export.convert import convert

    settings = {"n_expert_activated": 1, "pos_enc_layer_type": "abs_pos"}
    bundle = convert(make_experiment(encoder_conf=settings), tmp_path / "bundle")
    from edge.runtime.engines.openvino.cpu import OpenVinoBackend

    cpu = OpenVinoBackend(bundle, 1)
    engine = StaticBackend(bundle, cpu, "CPU", Watched())
    engine.prepare(4, 8)
    assert engine.trouble == ""
    random = np.random.default_rng(0)
    state = initial_state(bundle.manifest.caches, 8)
    for _ in range(5):
        part = random.normal(size=(19, bundle.manifest.features.num_mel_bins)).astype(np.float32)
        a, b = cpu.step(part, state), engine.step(part, state)
        np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-4)
        np.testing.assert_allclose(b.state.att_cache, a.state.att_cache, atol=1e-4)
        state = a.state


@pytest.mark.parametrize("left", [4, -1])
def test_a_stream_that_changes_its_chunks_gets_another_graph(left: int) -> None:
    """In the middle of an utterance, with the caches of the graph before; each size is compiled once."""
    watched = Watched()
    plain = Recognizer(Bundle.open(bundle_dir("fp32")), backend("fp32", "openvino"))
    fixed = Recognizer(plain.bundle, static("fp32", watched))
    audio = np.concatenate([load_audio(path)[0] for path in SAMPLES[:2]])
    found = []
    for recognizer in (plain, fixed):
        options = DecodeOptions(chunk=16, left_chunks=left, endpoint=None, reencode=False)
        stream = recognizer.stream(options)
        for turn, at in enumerate(range(0, len(audio), 16000)):
            chunk = (16, 32, 8)[turn % 3]
            kept = -1 if left < 0 else left * 16 // chunk
            stream.rechunk(dataclasses.replace(options, chunk=chunk, left_chunks=kept))
            assert stream.accept(audio[at : at + 16000], 16000) == []
        found.append((stream._state.att_cache, stream._state.cnn_cache, stream.finish()))
    (plain_att, plain_cnn, plain_text), (fixed_att, fixed_cnn, fixed_text) = found
    np.testing.assert_allclose(fixed_att, plain_att, atol=1e-3)
    np.testing.assert_allclose(fixed_cnn, plain_cnn, atol=1e-3)
    assert [r.text for r in fixed_text] == [r.text for r in plain_text] != []
    window = 64 if left > 0 else 512
    shapes = [(inputs["chunk"][1], inputs["att_cache"][2]) for inputs in watched.compiled]
    assert shapes == [(67, window), (131, window), (35, window)]


def test_no_shape_is_left_open() -> None:
    bundle = Bundle.open(bundle_dir("fp32"))
    model = make_static(core().read_model(str(bundle.encoder)), bundle.manifest, 16, 64)
    shapes = {port.any_name: list(port.get_shape()) for port in (*model.inputs, *model.outputs)}
    assert shapes["att_cache"] == [6, 4, 64, 48] and shapes["next_att_cache"] == [6, 4, 80, 48]
    assert shapes["log_probs"] == [1, 16, 31] and shapes["expert_counts"] == [12, 8]
    assert not any(out.get_partial_shape().is_dynamic for node in model.get_ops() for out in node.outputs())


def test_a_stream_that_keeps_everything_gets_a_larger_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.runtime.engines.openvino import gpu

    monkeypatch.setattr(gpu, "_WINDOW", 32)
    watched = Watched()
    engine = static("fp32", watched)
    engine.prepare(16, -1)
    parts = windows(np.concatenate([fbank(SAMPLES[0])] * 2))[:7]
    for a, b in zip(steps(backend("fp32", "openvino"), parts, -1), steps(engine, parts, -1)):
        np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-4)
    assert [inputs["att_cache"][2] for inputs in watched.compiled] == [32, 64, 128]
    assert engine.trouble == ""


def test_transcribing_uses_it() -> None:
    """Full chunks alone; the last chunk, the second pass in full context and rescoring run on the CPU."""
    watched = Watched()
    engine = static("fp32", watched)
    ran = []
    plain = Recognizer(Bundle.open(bundle_dir("fp32")), backend("fp32", "openvino"))
    fixed = Recognizer(plain.bundle, engine)
    graph = engine._graph
    engine._graph = lambda *shape: ran.append(shape) or graph(*shape)  # type: ignore[method-assign,func-returns-value]
    for sample in SAMPLES[:3]:
        assert list(fixed.transcribe(sample, options=ONE)) == list(plain.transcribe(sample, options=ONE))
        whole = DecodeOptions(full_context=True)
        assert list(fixed.transcribe(sample, options=whole)) == list(plain.transcribe(sample, options=whole))
    assert len(watched.compiled) == 1 and set(ran) == {(16, 512)} and len(ran) > 6


def damaged_weights(model: Any) -> None:
    """As a driver that computes garbage in one layer: its weight matrix is negated."""
    from openvino import opset13 as op

    node = next(n for n in model.get_ordered_ops() if ".linear_out" in n.get_friendly_name() and "MatMul" in str(n))
    targets = node.output(0).get_target_inputs()
    wrong = op.negative(node.output(0)).output(0)
    for target in targets:
        target.replace_source_output(wrong)


@pytest.mark.parametrize(
    ("watched", "reason"),
    [
        (
            Watched(fail="openvino on GPU: [GPU] clCreateBuffer, error code: -61 CL_OUT_OF_DEVICE_MEMORY"),
            "OUT_OF_DEVICE",
        ),
        (Watched(damage=damaged_weights), "differs from the CPU's by"),
    ],
    ids=["does not compile", "computes something else"],
)
def test_back_to_the_cpu(watched: Watched, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = static("fp32", watched)
    recognizer = Recognizer(Bundle.open(bundle_dir("fp32")), engine)
    with caplog.at_level(logging.WARNING):
        results = list(recognizer.transcribe(SAMPLES[0], options=ONE))
    plain = Recognizer(recognizer.bundle, backend("fp32", "openvino"))
    assert results == list(plain.transcribe(SAMPLES[0], options=ONE)), "and nothing of the device"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "running on the CPU" in said[0] and reason in said[0] and "\n" not in said[0]
    assert reason in engine.trouble


def test_a_device_that_fails_in_mid_stream(caplog: pytest.LogCaptureFixture) -> None:
    engine = static()
    engine.prepare(16, 64)
    parts = windows(fbank(SAMPLES[1]))
    expected = steps(backend("fp32", "openvino"), parts, 64)
    state = initial_state(engine._manifest.caches, 64)
    for index, (part, want) in enumerate(zip(parts, expected)):
        if index == 2:  # the device is gone: its requests fail
            ((_, graph),) = engine._graphs.items()
            graph._free.clear()
            graph.compiled = _Lost()
        with caplog.at_level(logging.WARNING):
            step = engine.step(part, state)
        np.testing.assert_allclose(step.log_probs, want.log_probs, atol=1e-4)
        state = step.state
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "CL_DEVICE_NOT_AVAILABLE" in said[0]


class _Lost:
    def create_infer_request(self) -> Any:
        raise RuntimeError("Exception from src/inference.cpp:1:\n[GPU] CL_DEVICE_NOT_AVAILABLE")


def test_a_machine_without_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    from edge.runtime.engines.openvino.core import devices

    if any(name.startswith("GPU") for name in devices()):
        pytest.skip("this machine has a GPU")
    with caplog.at_level(logging.WARNING):
        for device, lines in (("AUTO", 0), ("gpu", 1)):
            caplog.clear()
            recognizer = Recognizer.load(bundle_dir("fp32"), EngineConfig("openvino", device, 1))
            assert recognizer.backend.device == "CPU"
            assert len(caplog.records) == lines
    assert "expected GPU, found CPU" in caplog.text and "running on the CPU" in caplog.text
    assert list(recognizer.transcribe(SAMPLES[0]))


def test_too_many_shapes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from edge.runtime.engines.openvino import gpu

    monkeypatch.setattr(gpu, "_MAX_GRAPHS", 1)
    watched = Watched()
    engine = static("fp32", watched)
    with caplog.at_level(logging.WARNING):
        for chunk in (16, 8, 4):
            engine.prepare(chunk, 64)
    assert len(watched.compiled) == 1 and len(caplog.records) == 1 and "1 shapes" in caplog.text
    parts = windows(fbank(SAMPLES[0]), 8)[:3]
    for a, b in zip(steps(backend("fp32", "openvino"), parts, 64), steps(engine, parts, 64)):
        np.testing.assert_array_equal(a.log_probs, b.log_probs)
