"""The report: one page without the network, whose numbers are those of its JSON, and which invents nothing."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper
from places import ROOT
from report_helpers import EVIL, Page, check_page
from typer.testing import CliRunner

from calibration.corpus import Utterance, write_manifest
from edge.export.save import save_graph
from edge.runtime import Bundle, Manifest, write_bundle
from quant.measure.agreement import Agreement, measure_agreement
from quant.measure.bench.measure import BenchResult
from quant.measure.bench.stats import Ratio
from quant.measure.wer.compare import Selection
from quant.measure.wer.measure import WerReport
from quant.report.content import CalibrationInfo, Report
from quant.report.data import Sizes, decide, sizes
from quant.report.decode import ReportError, decode
from quant.report.html import render
from quant.report.make import make_report
from quant.report.measurements import PARTS, ReportRequest
from quant.report.names import percent, points, short
from u2edge.cli import app


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of three recordings; one transcript and one speaker want to be HTML."""
    folder, found = tmp_path_factory.mktemp("corpus"), []
    for i, text in enumerate(("a b c", f"a {EVIL}", "b")):
        rng = np.random.default_rng(i)
        step, size = 2000, 26000
        pitch, level = (np.repeat(10 ** rng.uniform(a, b, size // step), step) for a, b in ((2, 3.5), (-4, 0)))
        path = folder / f"{i}<b>.wav"
        soundfile.write(path, 0.5 * level * np.sin(2 * np.pi * np.cumsum(pitch) / 16000), 16000)
        found.append(Utterance(path.name, path, text, f"s{i}-{EVIL}"))
    write_manifest(found, folder / "manifest.jsonl")
    return folder


@pytest.fixture(scope="module")
def rounded(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with every weight rounded coarsely: something to report on."""

    def build(folder: Path) -> Manifest:
        opened = Bundle.open(tiny_bundle)
        shutil.copy(tiny_bundle / "tokens.txt", folder)
        for name in ("encoder.onnx", "decoder.onnx"):
            model = onnx.load(str(tiny_bundle / name))
            for tensor in model.graph.initializer:
                array = numpy_helper.to_array(tensor)
                if array.ndim == 2 and ".gate." not in tensor.name and array.dtype == np.float32:
                    scale = np.abs(array).max() / 15
                    tensor.CopyFrom(numpy_helper.from_array((np.round(array / scale) * scale), tensor.name))
            save_graph(model, folder / name)
        return opened.manifest

    return write_bundle(tmp_path_factory.mktemp("bundles") / "rounded", build).directory


@pytest.fixture(scope="module")
def made(
    tiny_bundle: Path, rounded: Path, pristine: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ReportRequest, dict[str, Any], str]:
    """A whole report on the coarse bundle."""
    request = ReportRequest(
        baseline=tiny_bundle,
        bundle=rounded,
        out=tmp_path_factory.mktemp("report"),
        checkpoint=pristine,
        selection=Selection((corpus,)),
        threads=1,
        seconds=0.0,
        processes=0,
        skip=frozenset({"sensitivity"}),
    )
    _, page = make_report(request)
    return request, json.loads((request.out / "report.json").read_text()), page.read_text()


def report_of(data: dict[str, Any], baseline: Bundle, bundle: Bundle) -> Report:
    """The page's content from what stands in report.json."""
    wer, bench = decode(WerReport, data["wer"], "wer"), decode(BenchResult, data["bench"], "bench")
    agreement, size = decode(Agreement, data["agreement"], "agreement"), sizes(baseline, bundle)
    whole = decode(
        Report,
        data
        | {
            "calibration": {},
            "calibration_json": data["calibration"],
            "verdict": {"word": "", "why": "", "level": "", "bars": []},
        },
        "report",
    )
    return dataclasses.replace(
        whole,
        calibration=decode(CalibrationInfo, data["calibration"], "calibration"),
        verdict=decide(wer, agreement, size, bench, 10),
    )


def test_page_stands_alone(made: tuple[ReportRequest, dict[str, Any], str]) -> None:
    page = check_page(made[2])
    assert ("style", {}) in page.tags and "prefers-color-scheme: dark" in made[2] and "@media print" in made[2]


def test_every_number_of_the_summary_is_on_the_page(made: tuple[ReportRequest, dict[str, Any], str]) -> None:
    _, data, text = made
    page = Page(text)
    assert data["summary"]["verdict"] in page.text and data["summary"]["why"] in page.text
    bars = data["summary"]["bars"]
    assert list(bars) == ["drop", "agreement", "size", "chunk"]
    for entry in bars.values():
        assert entry["value"] is not None and entry["passed"] is not None
        assert entry["text"] in page.text and entry["limit_text"] in page.text and entry["note"] in page.text
        # the text is the value, rounded
        number = float(re.sub(r"[^0-9.+-]", "", entry["text"].replace("−", "-")))
        scale = 100 if entry["key"] == "agreement" else 1
        assert number == pytest.approx(scale * entry["value"], abs=0.051 if scale == 100 else 0.0051)
    assert bars["size"]["value"] == data["size"]["bundle"] / data["size"]["fp32"]
    agreement = decode(Agreement, data["agreement"], "")
    assert bars["agreement"]["value"] == agreement.worst < 1.0
    for mode in data["wer"]["modes"]:
        assert mode["title"] in page.text
        assert f"{mode['bundle']['wer']:.2f}" in page.text and points(mode["difference"]["points"]) in page.text
    assert bars["drop"]["value"] == max(m["difference"]["points"] for m in data["wer"]["modes"])
    for layer in agreement.modes[0].layers:
        assert short(layer.layer) in page.text and percent(layer.set_same) in page.text
    for command in ("convert", "quantize", "wer", "bench", "report"):
        assert data["commands"][command] in page.text


def test_measurements_are_those_of_their_own_commands(
    made: tuple[ReportRequest, dict[str, Any], str], tiny_bundle: Path, rounded: Path, corpus: Path
) -> None:
    from calibration.corpus import read_corpus

    found = measure_agreement(tiny_bundle, rounded, read_corpus(corpus), threads=1)
    assert decode(Agreement, made[1]["agreement"], "") == found


def test_texts_of_files_are_escaped(made: tuple[ReportRequest, dict[str, Any], str]) -> None:
    request, data, _ = made
    worst = max(data["wer"]["modes"], key=lambda m: m["difference"]["points"])
    worst["words"] = [
        {"word": EVIL, "spoken": 3, "bundle": 2, "baseline": 1, "became": {EVIL: 1, "": 1}, "inserted": 0}
    ]
    worst["utterances"] = [
        {
            "name": EVIL,
            "reference": f"{EVIL} b",
            "bundle": f"b {EVIL}",
            "baseline": EVIL,
            "bundle_errors": 2,
            "baseline_errors": 1,
        }
    ]
    data["bundle"]["name"] = data["baseline"]["path"] = data["machine"]["cpu"] = EVIL
    data["corpus"]["skipped"] = {EVIL: EVIL}
    data["calibration"] = {
        "layers": {EVIL: 3},
        "fell_back": {EVIL: {"precision": EVIL, "why": EVIL}},
        "borrowed": [EVIL],
        "coverage": {"uncovered": {}},
    }
    data["wer"]["corpus"]["groups"] = {EVIL: 1, "other": 2}
    worst["groups"] = {EVIL: {k: worst[k] for k in ("bundle", "baseline", "difference")}}
    text = render(report_of(data, Bundle.open(request.baseline), Bundle.open(request.bundle)))
    page = check_page(text)
    assert EVIL in page.text and str(markupsafe.escape(EVIL)) in text and "<script" not in text


def test_missing_parts_are_named_with_their_commands(tiny_bundle: Path, rounded: Path, tmp_path: Path) -> None:
    request = ReportRequest(tiny_bundle, rounded, tmp_path, skip=frozenset({"bench"}))
    verdict, path = make_report(request)
    assert (verdict.word, verdict.level) == ("Not decided", "warn")
    data = json.loads((tmp_path / "report.json").read_text())
    assert [data[k] for k in ("wer", "bench", "agreement", "sensitivity", "coverage", "corpus")] == [None] * 6
    assert data["summary"]["bars"]["drop"]["value"] is None
    page = check_page(path.read_text())
    for command in ("wer", "bench", "calibrate", "quantize", "tune", "sensitivity"):
        assert data["commands"][command] in page.text
    assert f"--baseline {tiny_bundle}" in data["commands"]["wer"] and "MANIFEST" in data["commands"]["wer"]
    assert not (tmp_path / "measurements").exists()


def test_an_interrupted_report_goes_on(
    made: tuple[ReportRequest, dict[str, Any], str], corpus: Path, tmp_path: Path
) -> None:
    request, data, _ = made
    out = shutil.copytree(request.out, tmp_path / "again")
    kept = {p.name: p.stat().st_mtime_ns for p in (out / "measurements").glob("*.json")}
    assert {name.split("-")[0] for name in kept} == {"wer", "bench", "agreement"}
    (out / "report.json").unlink()
    next((out / "measurements").glob("agreement-*")).write_text("{ cut off", encoding="utf-8")  # killed on the way
    said: list[str] = []
    make_report(dataclasses.replace(request, out=out), said.append)
    assert [line.split(":")[1].split("(")[0].strip() for line in said] == [
        "as measured before",
        "as measured before",
        "measuring",
    ]
    again = json.loads((out / "report.json").read_text())
    assert again["bench"] == data["bench"] and again["agreement"] == data["agreement"]
    # other audio: other measurements
    (out / "report.json").unlink()
    said.clear()
    shorter = dataclasses.replace(request, out=out, selection=Selection((corpus,), limit=2), skip=frozenset({"bench"}))
    make_report(shorter, said.append)
    assert said == ["wer: measuring", "agreement: measuring"]


def test_sensitivity_and_coverage(tiny_bundle: Path, pristine: Path, corpus: Path, tmp_path: Path) -> None:
    """With a really quantized bundle and its checkpoint."""
    from edge.model.checkpoint import load_experiment
    from quant.bundle import quantize_checkpoint
    from quant.precision.scales import make_plan

    plan = make_plan(load_experiment(pristine), None, "weight8", keep={"encoder.encoders.0.self_attn"})
    fell_back = {p: {"precision": layer.precision, "why": layer.why} for p, layer in plan.layers.items() if layer.why}
    bundle = quantize_checkpoint(
        pristine, plan, tmp_path / "int8", calibration={"scheme": "weight8", "fell_back": fell_back}
    )
    request = ReportRequest(
        tiny_bundle,
        bundle.directory,
        tmp_path / "out",
        pristine,
        selection=Selection((corpus,)),
        skip=frozenset({"wer", "bench", "agreement"}),
        probes=1,
    )
    _, path = make_report(request)
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    kept = next(p for p in data["sensitivity"]["parts"] if p["path"] == "encoder.encoders.0.self_attn")
    assert kept["precision"] == "fp32" and kept["kl"] == 0.0
    assert max(p["kl"] for p in data["sensitivity"]["parts"]) > 0.0
    page = check_page(path.read_text())
    assert "block 0 attention (fp32)" in page.text and "Every expert alone" in page.text and "--keep" in page.text
    assert any(tag == "svg" and a.get("role") == "img" for tag, a in page.tags)


def test_verdicts(made: tuple[ReportRequest, dict[str, Any], str]) -> None:
    whole = decode(Agreement, made[1]["agreement"], "")
    heard, timed = decode(WerReport, made[1]["wer"], ""), decode(BenchResult, made[1]["bench"], "")

    def wer(points: float, low: float, high: float) -> WerReport:
        first, second, *_ = heard.modes
        assert first.difference is not None
        measured = dataclasses.replace(first.difference, points=points, low=low, high=high)
        unknown = dataclasses.replace(first.difference, points=None, low=None, high=None)
        modes = (dataclasses.replace(first, difference=measured), dataclasses.replace(second, difference=unknown))
        return dataclasses.replace(heard, modes=modes)

    def agreement(share: float) -> Agreement:
        layers = tuple(dataclasses.replace(layer, set_same=share) for layer in whole.modes[0].layers)
        return dataclasses.replace(whole, modes=(dataclasses.replace(whole.modes[0], layers=layers),))

    def bench(ratio: float) -> BenchResult:
        return dataclasses.replace(timed, ratios={"chunk": Ratio(ratio)})

    def size(ratio: float) -> Sizes:
        return Sizes(1, 4, 4, ratio)

    good = wer(0.1, -0.1, 0.15)
    cases = [
        ((good, agreement(0.98), size(0.3), bench(0.5)), "Ship", "good"),
        ((good, agreement(0.98), size(0.2), bench(0.51)), "Ship for size, not for speed", "warn"),
        ((good, agreement(0.98), size(0.31), bench(0.4)), "Ship for speed, not for size", "warn"),
        ((good, agreement(0.98), size(0.5), bench(0.9)), "Do not ship", "bad"),
        ((good, agreement(0.969), size(0.2), bench(0.4)), "Do not ship", "bad"),
        ((wer(0.21, 0.0, 0.4), agreement(0.98), size(0.2), bench(0.4)), "Do not ship", "bad"),
        ((wer(0.2, 0.0, 0.4), agreement(0.98), size(0.2), bench(0.4)), "Ship", "good"),
        ((good, agreement(0.98), size(0.2), None), "Not decided", "warn"),
        ((None, agreement(0.98), size(0.2), bench(0.4)), "Not decided", "warn"),
        ((None, agreement(0.9), size(0.2), bench(0.4)), "Do not ship", "bad"),
    ]
    for (words, routes, bytes_, times), word, level in cases:
        verdict = decide(words, routes, bytes_, times, 6_000_000)
        assert (verdict.word, verdict.level) == (word, level)
    assert "more audio" in decide(wer(0.1, -1.0, 1.2), None, size(0.2), None, 1).bars[0].note
    assert "too small" in decide(None, None, size(0.2), bench(0.9), 6_000_000).bars[3].note
    assert "too small" not in decide(None, None, size(0.2), bench(0.9), 60_000_000).bars[3].note


def test_clear_errors(
    made: tuple[ReportRequest, dict[str, Any], str], rounded: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    request = made[0]
    given = tmp_path / "wer.json"
    for text, complaint in (
        ("[", "found something else"),
        ("{}", "found something else"),
        (json.dumps({"bundle": {"sha256": "x"}, "baseline": None}), "found one of others"),
    ):
        given.write_text(text, encoding="utf-8")
        with pytest.raises(ReportError, match=complaint) as caught:
            make_report(dataclasses.replace(request, wer=given, out=tmp_path / "out"))
        assert "u2edge wer --bundle" in str(caught.value)
    cut = {k: made[1]["wer"][k] for k in ("bundle", "baseline")} | {"modes": [{}], "command": "", "corpus": None}
    given.write_text(json.dumps(cut), encoding="utf-8")
    with pytest.raises(ReportError, match="measurements of this version"):
        make_report(dataclasses.replace(request, wer=given, out=tmp_path / "out", skip=frozenset(PARTS)))
    assert not (tmp_path / "out" / "report.html").exists()
    with pytest.raises(ReportError, match="--skip"):
        make_report(dataclasses.replace(request, skip=frozenset({"everything"})))


def test_command_line(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["report", "--baseline", str(tiny_bundle), "--bundle", str(tiny_bundle), "-o", str(tmp_path)]
    result = CliRunner().invoke(app, [*words, "--skip", "bench"])
    assert result.exit_code == 0, result.output
    assert "Not decided" in result.output and str(tmp_path / "report.html") in result.output
    text = CliRunner().invoke(app, ["report", "--help"]).output
    assert "Example: u2edge report models/reference" in text


def test_needs_no_torch() -> None:
    """Everything but the sensitivity can be measured on a device."""
    code = (
        "import sys\n"
        "for name in ('torch', 'neural_compressor', 'openvino', 'matplotlib'): sys.modules[name] = None\n"
        "import quant.measure.agreement, quant.report.make\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
