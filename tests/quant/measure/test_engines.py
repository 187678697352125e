"""Engines side by side: wer and bench on one bundle, transcripts that are kept per engine, streams that prepare it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from openvino_helpers import REFERENCE, ROOT, SAMPLES, need_openvino

from calibration.corpus import Utterance
from edge.runtime import DecodeOptions, Recognizer
from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import OptionsError
from quant.measure.bench.audio import noise
from quant.measure.bench.measure import BenchOptions, bench
from quant.measure.labels import bundle_names as names
from quant.measure.labels import engine_names as alike
from quant.measure.wer.decode import SharedEncoder, share, transcribe
from quant.measure.wer.measure import Mode, measure_wer
from u2edge.options import Engine, baseline_config

OPENVINO = EngineConfig("openvino", threads=1)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


class Recording:
    """A loaded backend that notes what it is asked for, and may pretend to be another."""

    def __init__(self, backend: Any, **pretended: str) -> None:
        self.backend, self.prepared = backend, list[tuple[int, int]]()
        self.name, self.device, self.precision = backend.name, backend.device, backend.precision
        self.threads, self.steps = backend.threads, 0
        vars(self).update(pretended)

    def prepare(self, frames: int, left_frames: int) -> None:
        self.prepared.append((frames, left_frames))

    def step(self, *arguments: Any) -> Any:
        self.steps += 1
        return self.backend.step(*arguments)

    def rescore(self, *arguments: Any) -> Any:
        return self.backend.rescore(*arguments)


def wrapped(**pretended: str) -> tuple[Recognizer, Recording]:
    loaded = Recognizer.load(REFERENCE, EngineConfig(threads=1))
    recording = Recording(loaded.backend, **pretended)
    return Recognizer(loaded.bundle, recording), recording  # type: ignore[arg-type]


def test_transcripts_are_kept_per_engine_device_and_precision(tmp_path: Path) -> None:
    """A cache that another engine filled answers nothing."""
    corpus, modes = [Utterance("a", SAMPLES[0], "one")], [Mode("full", "ctc")]
    asked = []
    for pretended in ({}, {"name": "openvino"}, {"device": "GPU"}, {"precision": "bf16"}, {"device": "CPU"}):
        loaded, recording = wrapped(**pretended)
        found = measure_wer(loaded, corpus, modes, cache=tmp_path / "cache")
        asked.append(recording.steps > 0)
        assert found.inference == EngineConfig.of(recording)  # type: ignore[arg-type]
    assert asked == [True, True, True, True, False], "cpu and CPU are the same place"


def test_a_shared_encoder_prepares_its_engine() -> None:
    loaded, recording = wrapped()
    transcribe(loaded, SAMPLES[0], [DecodeOptions(chunk=8, left_chunks=2, rescoring=False)])
    assert recording.prepared == [(8, 16)]
    plain = Recognizer.load(REFERENCE, EngineConfig(threads=1))
    shared = SharedEncoder(plain.backend)
    shared.prepare(8, 16)  # onnxruntime has nothing to prepare
    assert (shared.precision, shared.calls) == ("f32", 0)


def test_what_a_recognizer_does_once_is_done_once() -> None:
    """The second pass claims memory with one long call at the first stream, not for every recording."""
    loaded, recording = wrapped()
    together, options = share(loaded), [DecodeOptions(reencode=True)]
    first = transcribe(together, SAMPLES[0], options)
    steps = recording.steps
    again = transcribe(together, SAMPLES[0], options)
    assert first == again and recording.steps == 2 * steps - 1


def test_names_say_what_differs() -> None:
    ort = EngineConfig()
    assert alike(ort, ort) == ("", "") and alike(OPENVINO, ort) == ("openvino", "onnxruntime")
    assert EngineConfig("openvino", "GPU", precision="f16").title == "openvino GPU f16"
    assert names("m", "static", "m", "static", alike(OPENVINO, ort)) == ("openvino", "onnxruntime")
    assert names("m", "static", "m", "fp32", ("openvino", "onnxruntime")) == ("static, openvino", "fp32, onnxruntime")
    rounded = dataclasses.replace(OPENVINO, precision="bf16")
    assert baseline_config(rounded, None, None) == rounded
    assert baseline_config(rounded, REFERENCE, Engine.openvino) == OPENVINO
    with pytest.raises(OptionsError, match="add --baseline"):
        baseline_config(rounded, None, Engine.openvino)


def test_bench_of_two_engines(tmp_path: Path) -> None:
    need_openvino()
    soundfile.write(tmp_path / "a.wav", noise(2.0, 16000), 16000)
    options = BenchOptions(320, rounds=1, processes=1, engine=OPENVINO, baseline_engine=EngineConfig(threads=1))
    found = bench(REFERENCE, REFERENCE, options, [tmp_path / "a.wav"])
    assert found.baseline is not None and found.bundle.sha256 == found.baseline.sha256
    assert (found.bundle.inference, found.baseline.inference) == (OPENVINO, EngineConfig(threads=1))
    assert found.bundle.chunks == found.baseline.chunks == 6 and found.ratios["chunk"].value > 0
    one, other = found.bundle.process, found.baseline.process
    assert one is not None and other is not None and one.load_ms > 0 and other.load_ms > 0
    assert "openvino" in found.versions


def test_wer_of_two_engines_in_processes(tmp_path: Path) -> None:
    need_openvino()
    rows = [{"audio": str(path), "text": "one two"} for path in SAMPLES[:2]]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    line = [sys.executable, "-m", "u2edge", "wer", "-b", str(REFERENCE), "-a", str(REFERENCE), "--jobs", "2"]
    line += ["--engine", "openvino", "--baseline-engine", "onnxruntime", "-d", str(tmp_path / "m.jsonl")]
    line += ["--mode", "full", "--rescoring", "off", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "openvino and onnxruntime write the same text everywhere" in done.stdout
    data = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert data["inference"] == dataclasses.asdict(OPENVINO) and data["baseline_inference"]["engine"] == "onnxruntime"


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("wer", ["-d", "models/reference/samples", "--baseline-engine", "openvino"], "expected a bundle to compare"),
        ("bench", ["--noise", "--baseline-engine", "openvino"], "expected a bundle to compare"),
        ("bench", ["--noise", "--precision", "bf16"], "expected f32 for the onnxruntime engine, found 'bf16'"),
        ("wer", ["-d", "models/reference/samples", "--precision", "f16"], "f32 for the onnxruntime engine"),
        ("transcribe", [str(SAMPLES[0]), "--precision", "bf16"], "f32 for the onnxruntime engine, found 'bf16'"),
        ("bench", ["--noise", "--device", "GPU"], "expected CPU for the onnxruntime engine, found 'GPU'"),
    ],
)
def test_refusals_are_one_line(command: str, options: list[str], message: str) -> None:
    line = [sys.executable, "-m", "u2edge", command, *options, "--threads", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = done.stderr.removeprefix("loading\n")  # what bench is at
    assert done.returncode == 1 and said.startswith("error: ") and message in said and said.count("\n") == 1


def test_transcribe_in_bf16_says_so() -> None:
    need_openvino()
    line = [sys.executable, "-m", "u2edge", "transcribe", str(SAMPLES[0]), "--engine", "openvino", "--no-partials"]
    done = subprocess.run(
        [*line, "--precision", "bf16"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        assert "precision: expected f32" in done.stderr
        pytest.skip("this processor has no bf16")
    assert "openvino on CPU in bf16" in done.stderr and done.stdout.strip()
