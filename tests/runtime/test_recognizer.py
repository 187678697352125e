from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT
from runtime_helpers import audio, bundle_dir, feed, recognizer, speech

from edge.runtime import AudioError, BackendError, DecodeOptions, OptionsError, Recognizer, load_audio, write_bundle
from edge.runtime.engines.base import initial_state, load_backend
from edge.runtime.engines.config import EngineConfig

MODEL = "moe_u2pp"
ONE_UTTERANCE = DecodeOptions(endpoint=None)


def test_stats() -> None:
    stream = recognizer(MODEL).stream(ONE_UTTERANCE)
    assert stream.stats.rtf == 0.0 and stream.stats.chunk_percentile(50) == 0.0
    feed(stream, audio(3.0))
    stats = stream.stats
    assert stats.audio_s == pytest.approx(3.0) and stats.chunks == 5 and stats.utterances == 1
    assert min(stats.feature_s, stats.encoder_s, stats.search_s, stats.rescoring_s) > 0.0
    assert stats.rtf == pytest.approx(stats.compute_s / 3.0)
    assert stats.first_partial_audio_ms == 685.0, "67 frames of 25 ms every 10 ms, whatever the blocks"
    assert stats.first_partial_wall_ms is not None and stats.first_partial_wall_ms > 0.0
    assert 0.0 < stats.chunk_percentile(50) <= stats.chunk_percentile(95)
    assert json.loads(json.dumps(stats.as_dict()))["chunks"] == 5


def test_results_are_json() -> None:
    (result,) = feed(recognizer(MODEL).stream(dataclasses.replace(ONE_UTTERANCE, nbest=2)), audio(2.0))
    data = json.loads(json.dumps(result.as_dict()))
    assert data["text"] == result.text and data["is_final"] is True and len(data["nbest"]) == 2
    assert [w["text"] for w in data["words"]] == [w.text for w in result.words]
    assert data["tokens"][0]["start_ms"] == round(result.tokens[0].start_ms, 1)


def test_transcribe_takes_files_and_samples() -> None:
    samples, rate = load_audio(speech())
    loaded = recognizer(MODEL)
    from_file = list(loaded.transcribe(speech(), options=ONE_UTTERANCE))
    assert from_file and from_file == list(loaded.transcribe(str(speech()), options=ONE_UTTERANCE))
    assert from_file == list(loaded.transcribe(samples, rate, ONE_UTTERANCE))
    with pytest.raises(AudioError, match="expected the rate of the samples"):
        list(loaded.transcribe(samples))
    with pytest.raises(AudioError, match="expected none for a file"):
        list(loaded.transcribe(speech(), 16000))
    with pytest.raises(AudioError, match="no such audio file"):
        list(loaded.transcribe("nowhere.wav"))
    with pytest.raises(OptionsError):
        loaded.stream(DecodeOptions(chunk_ms=100))


def test_engine_and_device_are_checked() -> None:
    bundle = recognizer(MODEL).bundle
    with pytest.raises(BackendError, match=r"expected one of onnxruntime.*found 'tensorrt'"):
        load_backend(bundle, EngineConfig("tensorrt"))
    with pytest.raises(BackendError, match=r"expected CPU .*found 'CUDA'"):
        load_backend(bundle, EngineConfig(device="cuda"))
    with pytest.raises(BackendError, match=r"threads: expected 1\.\.256"):
        load_backend(bundle, EngineConfig(threads=0))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("caches", {"heads": 8}, r"encoder\.onnx: expected input 'att_cache' as tensor.* \(3, 8, \?, 32\), found"),
        ("caches", {"conv_context": 14}, r"input 'cnn_cache'.*\(3, 1, 64, 14\), found .*\(3, 1, 64, 7\)"),
        ("features", {"num_mel_bins": 40}, r"input 'chunk'.*\(1, \?, 40\)"),
        ("moe", {"experts": 4}, r"output 'expert_counts'.*\(6, 4\)"),
    ],
)
def test_graphs_unlike_their_manifest_are_refused(section: str, change: dict[str, int], message: str) -> None:
    bundle = recognizer(MODEL).bundle
    manifest = dataclasses.replace(
        bundle.manifest, **{section: dataclasses.replace(getattr(bundle.manifest, section), **change)}
    )
    with pytest.raises(BackendError, match=message):
        load_backend(dataclasses.replace(bundle, manifest=manifest), EngineConfig())


def test_graph_that_is_not_onnx(tmp_path: Path) -> None:
    def build(folder: Path) -> Any:
        for name in ("encoder.onnx", "tokens.txt"):
            shutil.copy(bundle_dir(MODEL) / name, folder)
        (folder / "decoder.onnx").write_text("not a graph")
        manifest = recognizer(MODEL).manifest
        return dataclasses.replace(manifest, decoder=dataclasses.replace(manifest.decoder, bytes=0))

    write_bundle(tmp_path / "b", build)
    with pytest.raises(BackendError, match=r"decoder\.onnx: expected an ONNX graph.*u2edge convert"):
        Recognizer.load(tmp_path / "b")


def test_nan_from_the_encoder_is_an_error_not_text() -> None:
    state = initial_state(recognizer(MODEL).manifest.caches, -1)
    with pytest.raises(BackendError, match="NaN at encoder frame 0"):
        recognizer(MODEL).backend.step(np.full((67, 80), np.nan, np.float32), state)


def test_import_needs_no_engine_and_no_training_code() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'edge.model', 'edge.export'):\n"
        "    sys.modules[name] = None\n"
        "import edge.runtime\n"
        "print(edge.runtime.Recognizer.__name__)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stdout.strip() == "Recognizer", run.stderr
