"""u2edge inspect: what it says is what the manifest and the files hold, and damage never hides what can be said."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_helpers import MANIFEST, build

from edge.runtime import Bundle, Manifest, write_bundle
from u2edge import cli
from u2edge import inspection as inspect

Command = Callable[..., tuple[Any, str, str]]

CALIBRATION = {
    "layers": {"fp32": 1, "static": 5},
    "scheme": "static",
    "command": "u2edge quantize exp -o int8",
    "fell_back": {f"encoder.layer.{i}": {"precision": "fp32", "why": "was never reached"} for i in range(6)},
    "observer": "kl",
    "profile": {"sha256": "ab" * 32, "utterances": 12, "seconds": 46.8, "command": "u2edge calibrate exp"},
    "coverage": {"experts": 8, "covered": 7, "uncovered": {"encoder.0.experts.3": 5}},
    "borrowed": ["encoder.0.experts.3.w_1"],
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``command(*arguments)``: exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["u2edge", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return call


def write(folder: Path, manifest: Manifest) -> Path:
    return write_bundle(folder, lambda staging: (build(staging), manifest)[1]).directory


def test_a_converted_bundle(tiny_bundle: Path, command: Command) -> None:
    code, text, error = command(tiny_bundle)
    assert (code, error) == (0, "")
    for expected in (
        "conformer 2 x 16, 2 heads, 4 layers of 4 experts, 2 active, conv2d, bitransformer decoder of 1+1 layers",
        "chunk 1..5000 (multiples of 40 ms; trained with up to 25 = 1000 ms)",
        "an utterance is cut at 200 s",
        "left-to-right and right-to-left, reverse weight 0.3",
        "12 (blank 0, sos 2, eos 2, unk 1)",
        "16000 Hz (audio of any rate is resampled), 20 mel bins, 25 ms every 10 ms, povey window, dither 0",
        "calibration   none: not quantized",
        "checksums     OK (3 files)",
    ):
        assert expected in text, text


def test_json_is_the_manifest_and_the_files(tiny_bundle: Path, command: Command) -> None:
    code, text, _ = command(tiny_bundle, "--json")
    data, manifest = json.loads(text), Bundle.open(tiny_bundle).manifest
    assert code == 0 and data["ok"] is True and data["problem"] == "" and data["unknown_fields"] == []
    assert data["files"] == dict.fromkeys(("encoder.onnx", "decoder.onnx", "tokens.txt"), "ok")
    sizes = {name: sum(p.stat().st_size for p in tiny_bundle.glob(f"{name}.onnx*")) for name in ("encoder", "decoder")}
    assert {name: graph["bytes"] for name, graph in data["graphs"].items()} == sizes
    assert data["features"] == dataclasses.asdict(manifest.features)
    assert data["moe"] == {"layers": list(manifest.moe.layers), "experts": 4, "active": 2}
    assert data["parity"] == manifest.parity and data["tools"] == manifest.tools
    assert data["streaming"]["frame_ms"] == 40 and data["streaming"]["full_context"] is True


def test_a_quantized_bundle(tmp_path: Path, command: Command) -> None:
    encoder = dataclasses.replace(MANIFEST.encoder, scheme="static", storage="fp16")
    manifest = dataclasses.replace(MANIFEST, encoder=encoder, calibration=CALIBRATION)
    _, text, _ = command(write(tmp_path / "bundle", manifest))
    for expected in (
        "static, other weights stored as fp16",
        "layers: 1 fp32, 5 static",
        f"profile {'ab' * 8}: 12 utterances, 46.8 s, kl scales",
        "experts seen often enough: 7 of 8; layers that borrow statistics: 1",
        "encoder.layer.0 (fp32: was never reached)",
        ", and 2 more",
        "calibrated with: u2edge calibrate exp",
        "quantized with: u2edge quantize exp -o int8",
    ):
        assert expected in text, text


@pytest.mark.parametrize("calibration", [{"x": 1}, {"profile": 3, "coverage": [], "fell_back": "no", "layers": None}])
def test_calibration_of_any_shape_is_no_reason_to_fail(
    tmp_path: Path, command: Command, calibration: dict[str, Any]
) -> None:
    folder = write(tmp_path / "bundle", dataclasses.replace(MANIFEST, calibration=calibration, model={"encoder": 3}))
    assert command(folder)[0] == 0


def test_models_that_cannot_stream_say_why(tmp_path: Path, command: Command) -> None:
    stream = dataclasses.replace(MANIFEST.stream, streaming=False, why_not_streaming="its convolution sees the future")
    _, text, _ = command(write(tmp_path / "bundle", dataclasses.replace(MANIFEST, stream=stream)))
    assert "full_context" in text and "cannot stream: its convolution sees the future" in text


def test_damage_is_named_and_the_rest_is_shown(tiny_bundle: Path, tmp_path: Path, command: Command) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    data = bytearray((damaged / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "decoder.onnx").write_bytes(data)
    code, text, error = command(damaged, "--json")
    found = json.loads(text)
    assert (code, error) == (1, "") and found["ok"] is False and found["name"] == Bundle.open(tiny_bundle).manifest.name
    assert found["files"] == {"encoder.onnx": "ok", "decoder.onnx": "damaged", "tokens.txt": "ok"}
    code, text, _ = command(damaged)
    assert code == 1 and "conformer 2 x 16" in text and "NOT OK: damaged: decoder.onnx; copy the bundle again" in text
    (damaged / "decoder.onnx").unlink()
    code, text, _ = command(damaged)
    assert code == 1 and "conformer 2 x 16" in text and "NOT OK: " in text and "decoder.onnx: expected by" in text


def test_what_is_no_bundle_is_one_line(tmp_path: Path, command: Command) -> None:
    for content, expected in ((None, "expected manifest.json, found none"), ("{", "manifest.json is not JSON")):
        if content is not None:
            (tmp_path / "manifest.json").write_text(content)
        code, text, error = command(tmp_path)
        assert (code, text) == (1, "") and error.startswith("error: ") and error.count("\n") == 1 and expected in error
    code, text, error = command(tmp_path / "nowhere")
    assert (code, text) == (1, "") and "expected a bundle directory, found nothing" in error


def test_a_manifest_cannot_make_it_read_other_files(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "bundle", MANIFEST)
    (tmp_path / "secret").write_text("x")
    data = json.loads((folder / "manifest.json").read_text())
    data["checksums"]["../secret"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(data))
    code, text, _ = command(folder, "--json")
    assert code == 1 and json.loads(text)["files"]["../secret"] == "not checked"


def test_fields_of_a_newer_version_are_listed(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "bundle", MANIFEST)
    data = json.loads((folder / "manifest.json").read_text())
    data["stream"]["lookahead"] = 3
    (folder / "manifest.json").write_text(json.dumps(data))
    code, text, _ = command(folder)
    assert code == 0 and "manifest.stream.lookahead (of a newer u2edge)" in text


def test_fields_that_have_gone_are_not_called_newer(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "bundle", MANIFEST)
    data = json.loads((folder / "manifest.json").read_text())
    for graph in ("encoder", "decoder"):
        data[graph]["reduce_range"] = True
    (folder / "manifest.json").write_text(json.dumps(data))
    code, text, _ = command(folder)
    assert code == 0 and "ignored" not in text and "reduce_range" not in text
    assert json.loads(command(folder, "--json")[1])["unknown_fields"] == []


def test_one_liner_without_a_model_section() -> None:
    assert (
        inspect.one_liner(MANIFEST)
        == "0.0 M parameters, encoder 1 x 4, 1 heads, 1 layers of 8 experts, 2 active, subsampling 4"
    )
