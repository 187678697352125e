"""The accuracy-driven search, with the real recognizer on real (tiny, random) bundles; and u2edge quantize."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_helpers import centre, corpus
from fixture_types import MakeExperiment
from onnx import numpy_helper
from typer.testing import CliRunner

from calibration.collect import StatisticsCollector
from calibration.corpus import Utterance, write_manifest
from calibration.profile import CalibrationOptions, CoverageRule, Profile, merge
from edge.export.convert import convert
from edge.model.checkpoint import load_experiment
from edge.runtime import DecodeOptions, Recognizer
from edge.runtime.bundle import Bundle
from edge.runtime.errors import EdgeError
from quant.precision.scales import Replay
from quant.precision.tuning import Tuning, TuningOptions, steps, tune
from u2edge.cli import app


@pytest.fixture(scope="module")
def checkpoint(make_experiment: MakeExperiment) -> Path:
    return centre(make_experiment(encoder_conf={"num_blocks": 1, "n_expert": 2, "n_expert_activated": 1}))


@pytest.fixture(scope="module")
def spoken(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Recordings of noise; what the fp32 model hears in them is their text."""
    folder = tmp_path_factory.mktemp("corpus")
    recognizer = Recognizer.load(convert(checkpoint, folder / "fp32").directory)
    options = DecodeOptions(full_context=True, reencode=False)
    found = []
    for utterance in corpus(folder / "audio", 4, seconds=2.0):
        text = " ".join(r.text for r in recognizer.transcribe(utterance.audio, options=options))
        found.append(dataclasses.replace(utterance, text=text))
    assert sum(len(u.text.split()) for u in found) >= 4
    return found


@pytest.fixture(scope="module")
def profile(checkpoint: Path, spoken: list[Utterance]) -> Profile:
    observer = StatisticsCollector(load_experiment(checkpoint), CalibrationOptions())
    return merge([observer.collect(u.name, *observer.load(u.audio)) for u in spoken])


@pytest.fixture(scope="module")
def saved(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "tiny.profile"
    profile.save(path)
    return path


def test_an_impossible_budget_ends_with_everything_in_float(
    checkpoint: Path, profile: Profile, spoken: list[Utterance]
) -> None:
    experiment = load_experiment(checkpoint)
    replay = Replay(experiment, profile, CoverageRule(0.0, 0.0))
    lines: list[str] = []
    options = TuningOptions(max_drop=-100.0, observers=("minmax",), sensitivity_utterances=1)
    tuning = tune(experiment, replay, spoken, options, report=lines.append)
    assert not tuning.accepted and tuning.sensitivity is not None
    counts = [len(trial.fell_back) for trial in tuning.trials]
    assert counts == sorted(counts) and counts[:3] == [0, 1, 2]
    last = tuning.trials[-1]
    assert last.drop == pytest.approx(0.0, abs=1e-6)  # float computes what float computes
    assert last.agreement > 0.99
    assert last.bytes > tuning.trials[0].bytes
    experts = [p for p in last.fell_back if ".experts." in p]
    assert len(experts) == 4  # 2 feed-forward layers of 2 experts, one by one
    assert len(lines) == len(tuning.trials) + 3 and lines[0].startswith("scored in WER: ")
    assert tuning.plan.counts() == {"fp32": len(tuning.plan.layers)} or tuning.chosen < len(counts) - 1


@pytest.fixture(scope="module")
def generous(checkpoint: Path, profile: Profile, spoken: list[Utterance]) -> Tuning:
    options = TuningOptions(max_drop=1000.0, agreement=0.0)
    return tune(load_experiment(checkpoint), Replay(load_experiment(checkpoint), profile), spoken, options)


def test_a_generous_budget_needs_one_trial(generous: Tuning) -> None:
    assert generous.accepted and len(generous.trials) == 1 and generous.sensitivity is None
    assert generous.plan.counts() == {"static": len(generous.plan.layers) - 1, "fp32": 1}
    assert generous.to_dict()["trials"][0]["observer"] == "minmax"


def test_routing_alone_makes_the_search_react_and_float_is_stored_small(
    checkpoint: Path, profile: Profile, spoken: list[Utterance], generous: Tuning
) -> None:
    wanted = generous.trials[0].agreement + 1e-6
    if wanted > 0.999:
        pytest.skip("quantization changed no routing decision of this random model")
    experiment = load_experiment(checkpoint)
    options = TuningOptions(max_drop=1000.0, agreement=wanted, observers=("minmax",), sensitivity_utterances=1)
    tuning = tune(experiment, Replay(experiment, profile), spoken, options)
    assert tuning.accepted and len(tuning.trials) > 1
    assert not tuning.trials[0].accepted
    assert tuning.trials[tuning.chosen].agreement >= wanted
    assert tuning.trials[-1].precision == "weight8"
    assert tuning.trials[-1].bytes < tuning.trials[-2].bytes


def test_steps_double_and_end_with_all() -> None:
    assert [steps(n) for n in (0, 1, 2, 3, 8, 9)] == [[], [1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 9]]


def test_quantize_writes_a_bundle_that_says_where_its_scales_came_from(
    checkpoint: Path, saved: Path, profile: Profile, spoken: list[Utterance], tmp_path: Path
) -> None:
    manifest = tmp_path / "dev.jsonl"
    write_manifest([dataclasses.replace(u, split="dev") for u in spoken], manifest)
    out = tmp_path / "int8"
    command = ["quantize", str(checkpoint), "--profile", str(saved), "-o", str(out), "--keep", "ctc.ctc_lo"]
    result = CliRunner().invoke(app, [*command, "--tune", str(manifest), "--max-drop", "1000", "--min-agreement", "0"])
    assert result.exit_code == 0, result.output
    found = Bundle.open(out).manifest
    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(out / "encoder.onnx").graph.initializer
        if t.data_type == onnx.TensorProto.INT8
    ]
    assert max(np.abs(q.astype(int)).max() for q in weights) == 127
    calibration = found.calibration
    assert calibration["profile"]["utterances"] == 4
    assert calibration["fell_back"]["ctc.ctc_lo"] == {"precision": "fp32", "why": "--keep"}
    assert calibration["tuning"]["accepted"] and calibration["tuning"]["trials"][0]["wer"]
    assert calibration["coverage"]["experts"] == 4
    assert "QGemm" in result.output and "ctc.ctc_lo: fp32 (--keep)" in result.output
    assert list(Recognizer.load(out).transcribe(spoken[0].audio)) is not None
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, EdgeError) and "--force" in str(again.exception)


def test_quantize_refuses_what_does_not_belong_together(
    make_experiment: MakeExperiment, checkpoint: Path, saved: Path, tmp_path: Path
) -> None:
    other = make_experiment(seed=9)
    out = tmp_path / "int8"
    for arguments, message in (
        ([str(other), "--profile", str(saved)], "calibration profile: expected one of"),
        ([str(checkpoint), "--profile", str(tmp_path / "none.profile")], "u2edge calibrate"),
        ([str(checkpoint), "--profile", str(saved), "--keep", "nowhere"], "--keep"),
        ([str(checkpoint), "--scheme", "dynamic", "--tune", str(tmp_path)], "--scheme static"),
    ):
        result = CliRunner().invoke(app, ["quantize", *arguments, "-o", str(out)])
        assert isinstance(result.exception, EdgeError) and message in str(result.exception), result.output
        assert not out.exists()
