"""OpenVINO on the CPU: the same bundle, the same text, nothing said to anyone."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino_helpers import (
    REFERENCE,
    ROOT,
    SAMPLES,
    backend,
    bundle_dir,
    fbank,
    need_openvino,
    recognizer,
    steps,
    windows,
)

from edge.runtime import BackendError, Bundle, DecodeOptions, Recognizer, load_audio
from edge.runtime.engines.base import initial_state, load_backend
from edge.runtime.engines.config import EngineConfig

MODES = {
    "streaming": DecodeOptions(endpoint=None, reencode=False),
    "four left chunks": DecodeOptions(chunk_ms=320, left_chunks=4, reencode=False),
    "ctc only": DecodeOptions(rescoring=False),
    "full context": DecodeOptions(full_context=True),
}


@pytest.fixture(autouse=True)
def _needs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_openvino()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_the_same_text_as_onnxruntime(scheme: str, mode: str) -> None:
    for sample in SAMPLES:
        texts = [
            [r.text for r in recognizer(scheme, engine).transcribe(sample, options=MODES[mode])]
            for engine in ("onnxruntime", "openvino")
        ]
        assert texts[0] == texts[1] and texts[0]


@pytest.mark.parametrize(("chunk", "left"), [(16, 64), (8, -1), (4, 0), (400, -1)])
def test_fp32_log_probs(chunk: int, left: int) -> None:
    parts = windows(fbank(SAMPLES[1]), chunk)
    ort, vino = (steps(backend("fp32", engine), parts, left) for engine in ("onnxruntime", "openvino"))
    for a, b in zip(ort, vino):
        np.testing.assert_allclose(b.log_probs, a.log_probs, atol=1e-3)
        np.testing.assert_allclose(b.state.att_cache, a.state.att_cache, atol=1e-3)
        np.testing.assert_allclose(b.state.cnn_cache, a.state.cnn_cache, atol=1e-3)
        np.testing.assert_array_equal(b.expert_counts, a.expert_counts)
        assert b.state.offset == a.state.offset


def test_int8_log_probs() -> None:
    """Both engines compute the same integers until an activation lies so close to the middle of two steps that the
    order of a float sum decides; from there on that chunk differs as int8 differs from fp32. (So does onnxruntime from
    itself without graph optimizations.) A chunk without such a tie is the same to 1e-3; every chunk means the same."""
    same = total = 0
    for sample in SAMPLES:
        parts = windows(fbank(sample))
        for part, step in zip(parts, steps(backend("int8", "onnxruntime"), parts, 64)):
            # One chunk from the same state: differences do not add up over chunks.
            before = dataclasses.replace(step.state, att_cache=step.state.att_cache, offset=step.state.offset)
            a, b = (backend("int8", engine).step(part, before).log_probs for engine in ("onnxruntime", "openvino"))
            difference = float(np.abs(a - b).max())
            same, total = same + (difference <= 2e-2), total + 1
            assert np.linalg.norm(a - b) / np.linalg.norm(a) < 0.1
            assert np.abs(np.exp(a) - np.exp(b)).max() < 0.35
    assert same >= total / 4, "another scale, or float kernels, would leave none"


def test_decoders_score_the_same() -> None:
    random = np.random.default_rng(0)
    hyps = random.integers(0, 30, (5, 9))
    hyps[:, 0] = 30
    lens, memory = np.array([9, 4, 9, 1, 7]), random.normal(size=(37, 96)).astype(np.float32)
    for a, b in zip(*(backend("fp32", engine).rescore(hyps, lens, memory) for engine in ("onnxruntime", "openvino"))):
        assert a.shape == b.shape == (5, 9, 31)
        np.testing.assert_allclose(b, a, atol=1e-3)


def test_ten_interleaved_streams() -> None:
    loaded = recognizer("fp32", "openvino")
    audio = [load_audio(SAMPLES[i % len(SAMPLES)])[0][i * 1000 :] for i in range(10)]
    alone = [[r for r in loaded.transcribe(samples, 16000)] for samples in audio]
    streams, together = [loaded.stream() for _ in audio], [[] for _ in audio]  # type: ignore[var-annotated]
    for start in range(0, max(map(len, audio)), 1600):
        for stream, samples, results in zip(streams, audio, together):
            if start < len(samples):
                results += stream.accept(samples[start : start + 1600], 16000)
    for stream, results in zip(streams, together):
        results += stream.finish()
    assert together == alone, "to the bit"


def test_threads_share_a_backend() -> None:
    parts = windows(fbank(SAMPLES[0]))
    engine = backend("fp32", "openvino")
    expected = [step.log_probs for step in steps(engine, parts, 64)]
    found: dict[int, Any] = {}

    def run(index: int) -> None:
        found[index] = [step.log_probs for _ in range(3) for step in steps(engine, parts, 64)]

    workers = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(4):
        for have, want in zip(found[index], expected * 3):
            np.testing.assert_array_equal(have, want)


def test_a_stream_can_change_its_engine() -> None:
    parts = windows(fbank(SAMPLES[0]))
    expected = steps(backend("fp32", "onnxruntime"), parts, -1)
    state = initial_state(recognizer("fp32", "openvino").manifest.caches, -1)
    for index, (part, want) in enumerate(zip(parts, expected)):
        step = backend("fp32", ("openvino", "onnxruntime")[index % 2]).step(part, state)
        np.testing.assert_allclose(step.log_probs, want.log_probs, atol=1e-3)
        state = step.state


def test_results_are_not_views_of_the_engine() -> None:
    engine, parts = backend("fp32", "openvino"), windows(fbank(SAMPLES[0]))
    first = engine.step(parts[0], initial_state(recognizer("fp32", "openvino").manifest.caches, -1))
    kept = [
        first.log_probs.copy(),
        first.encoder_out.copy(),
        first.state.att_cache.copy(),
        first.state.cnn_cache.copy(),
    ]
    engine.step(parts[1], first.state)
    for have, want in zip(
        (first.log_probs, first.encoder_out, first.state.att_cache, first.state.cnn_cache), kept, strict=True
    ):
        np.testing.assert_array_equal(have, want)


def test_compiled_graphs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts = windows(fbank(SAMPLES[0]))
    results = []
    for damage in (False, False, True):
        blobs = sorted(tmp_path.glob("u2edge/openvino/*/*.blob"))
        if damage:
            for blob in blobs:
                blob.chmod(0o600)
                blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
        engine = load_backend(Bundle.open(REFERENCE), EngineConfig("openvino", threads=1))
        results.append(steps(engine, parts, 64)[-1].log_probs)
        assert len(sorted(tmp_path.glob("u2edge/openvino/*/*.blob"))) == 2, "encoder and decoder"
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_without_a_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from edge.runtime.engines.openvino import core

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    core._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        engine = load_backend(Bundle.open(REFERENCE), EngineConfig("openvino", threads=1))
    assert steps(engine, windows(fbank(SAMPLES[0]))[:1], 64)
    said = [r.getMessage() for r in caplog.records if "cache" in r.getMessage()]
    assert len(said) == 1 and "XDG_CACHE_HOME" in said[0], "once, for both graphs"


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    bundle = Bundle.open(REFERENCE)
    with pytest.raises(BackendError, match=r"expected CPU, GPU or AUTO.*found 'NPU'; this machine has .*CPU"):
        load_backend(bundle, EngineConfig("openvino", "NPU"))
    with pytest.raises(BackendError, match=r"precision: expected f32.*found 'f64'"):
        load_backend(bundle, EngineConfig("openvino", precision="f64"))
    with pytest.raises(BackendError, match=r"expected f32 for the onnxruntime engine, found 'bf16'"):
        load_backend(bundle, EngineConfig(precision="bf16"))
    with pytest.raises(BackendError, match="finite features at encoder frame 0, found NaN"):
        backend("fp32", "openvino").step(
            np.full((67, 80), np.nan, np.float32), initial_state(bundle.manifest.caches, -1)
        )
    for name in ("decoder.onnx", "tokens.txt", "manifest.json"):
        (tmp_path / name).write_bytes((REFERENCE / name).read_bytes())
    (tmp_path / "encoder.onnx").write_text("not a graph")
    with pytest.raises(
        BackendError, match=r"encoder\.onnx: expected an ONNX graph, openvino .* on CPU: .*u2edge convert"
    ):
        load_backend(dataclasses.replace(bundle, directory=tmp_path), EngineConfig("openvino"))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "caches",
            {"heads": 8},
            r"encoder\.onnx: expected input 'att_cache' as .*\(6, 8, \?, 48\), found tensor\(float\) \(6, 4",
        ),
        ("features", {"num_mel_bins": 40}, r"input 'chunk'.*\(1, \?, 40\)"),
        ("moe", {"experts": 4}, r"output 'expert_counts'.*\(12, 4\)"),
    ],
)
def test_graphs_unlike_their_manifest_are_refused(section: str, change: dict[str, int], message: str) -> None:
    bundle = Bundle.open(REFERENCE)
    manifest = dataclasses.replace(
        bundle.manifest, **{section: dataclasses.replace(getattr(bundle.manifest, section), **change)}
    )
    with pytest.raises(BackendError, match=message):
        load_backend(dataclasses.replace(bundle, manifest=manifest), EngineConfig("openvino"))


def test_the_router_does_not_run_in_bf16() -> None:
    """Asked of the compiled graph, and shown by what it computes: bf16 keeps 8 bits, and differs at once."""
    engine: Any = backend("fp32", "openvino")
    for graph in (engine._encoder, engine._decoder):
        assert graph.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    try:
        rounded = load_backend(Bundle.open(REFERENCE), EngineConfig("openvino", threads=1, precision="bf16"))
    except BackendError as error:
        pytest.skip(str(error))
    parts = windows(fbank(SAMPLES[0]))[:1]
    difference = np.abs(steps(rounded, parts, 64)[0].log_probs - steps(engine, parts, 64)[0].log_probs).max()
    assert difference > 1e-3


def test_nothing_is_told_to_intel() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*args): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "from edge.runtime.engines.openvino.core import openvino\n"
        "openvino()\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stdout.strip() == "[]", run.stderr


def test_without_openvino() -> None:
    program = (
        "import sys\n"
        "sys.modules['openvino'] = None\n"
        "from edge.runtime import Recognizer, BackendError, EngineConfig\n"
        "r = Recognizer.load('models/reference-bundle', EngineConfig('auto', threads=1))\n"
        "print(r.backend.name, r.choice.reason)\n"
        "try:\n"
        "    Recognizer.load('models/reference-bundle', EngineConfig('openvino'))\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    chosen, error = run.stdout.strip().splitlines()
    assert chosen.startswith("onnxruntime ")
    assert "pip install 'u2edge[openvino]'" in error


def test_cli(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "u2edge", "transcribe", str(SAMPLES[0]), "--no-partials", "--threads", "1"]
    texts = []
    for more in ([], ["--engine", "openvino"], ["--engine", "openvino", "--device", "gpu"], ["--engine", "auto"]):
        run = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        texts.append(run.stdout)
        if "openvino" in more:
            assert "openvino on " in run.stderr
        if "gpu" in more and "openvino on GPU" not in run.stderr:
            assert "running on the CPU" in run.stderr
    assert texts[0] and len(set(texts)) == 1
    assert isinstance(Recognizer.load(bundle_dir("fp32"), EngineConfig("openvino")).backend.threads, int)
