"""What a bundle promises, as a user of the command meets it: one line that names what is supported, exit code 1."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from model_helpers import MEL

from edge.export.convert import convert
from edge.runtime import Bundle, DecodeOptions, ManifestError, OptionsError, Recognizer, StreamError
from edge.runtime import manifest as manifest_module
from edge.runtime.bundle import sha256
from edge.runtime.engines.config import EngineConfig
from edge.runtime.manifest import SCHEMA_VERSION, Manifest, unknown_fields
from u2edge import cli

Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """``refusal(bundle, *options)``: the line with which ``u2edge transcribe`` refuses real audio."""
    audio = tmp_path / "speech.wav"
    soundfile.write(audio, np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32), 16000)

    def transcribe(bundle: Path, *options: object) -> str:
        command = ["u2edge", "transcribe", str(audio), "--threads", "1", "-b", str(bundle), *map(str, options)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output, error = capsys.readouterr()
        assert stop.value.code == 1 and output == "", (stop.value.code, output, error)
        assert error.startswith("error: ") and error.count("\n") == 1, error
        return error.strip()

    return transcribe


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to alter."""
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


@pytest.fixture(scope="module")
def static(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained with chunks of five frames only."""
    settings = {"use_dynamic_chunk": False, "static_chunk_size": 5}
    return convert(make_experiment(encoder_conf=settings), tmp_path_factory.mktemp("static") / "bundle").directory


@pytest.fixture(scope="module")
def offline(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose convolution sees the future."""
    settings = {"causal": False, "use_dynamic_chunk": False}
    return convert(make_experiment(encoder_conf=settings), tmp_path_factory.mktemp("offline") / "bundle").directory


def test_chunks_the_bundle_was_not_made_for(tiny_bundle: Path, static: Path, offline: Path, refusal: Refusal) -> None:
    dynamic = "supported: chunk 1..5000 (multiples of 40 ms; trained with up to 25 = 1000 ms)"
    one = "supported: chunk 5 (200 ms)"
    for bundle, options, expected in (
        (tiny_bundle, ["--chunk-ms", 100], f"multiple of 40 ms, found 100; nearest: 80 or 120; {dynamic}"),
        (tiny_bundle, ["--chunk-ms", 400_000], f"found 10000 frames; {dynamic}"),
        (static, ["--chunk-ms", 640], f"chunk: found 16 frames; {one}"),
        (static, ["--full-context"], f"trained with chunks of 5 frames only; {one}"),
        (static, ["--reencode"], f"has no full context; {one}"),
        (offline, ["--chunk-ms", 640], "use full_context (--full-context), supported: full_context"),
        (offline, [], "this model cannot stream: "),
    ):
        assert expected in refusal(bundle, *options)


def test_what_the_bundle_offers_is_not_refused(
    static: Path, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The other side of every refusal: the option that its message names works."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32), 8000)
    for bundle, options in ((static, ["--chunk-ms", "200"]), (static, []), (offline, ["--full-context"])):
        monkeypatch.setattr(sys, "argv", ["u2edge", "transcribe", str(tmp_path / "a.wav"), "-b", str(bundle), *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0, capsys.readouterr().err


def test_left_context(tiny_bundle: Path, refusal: Refusal) -> None:
    line = refusal(tiny_bundle, "--left-chunks", -2)
    assert "left_chunks: expected -1 (all), 0 or more, found -2; supported: " in line and "left_chunks -1, 0" in line
    assert "use one or the other; supported: " in refusal(tiny_bundle, "--full-context", "--left-chunks", 4)


def test_sample_rate(tiny_bundle: Path, copy: Path, refusal: Refusal) -> None:
    """Audio of any rate is taken; a rate that the model does not have is not."""
    recognizer = Recognizer.load(tiny_bundle, EngineConfig(threads=1))
    recognizer.stream(DecodeOptions(sample_rate=16000)).accept(np.zeros(800, np.int16), 8000)
    with pytest.raises(
        OptionsError, match=r"sample_rate: expected 16000 Hz.*found 8000.*audio of any rate is resampled"
    ):
        recognizer.stream(DecodeOptions(sample_rate=8000))
    stream = recognizer.stream()
    stream.accept(np.zeros(800, np.int16), 8000)
    with pytest.raises(StreamError, match="expected 8000 Hz as before in this stream, found 16000 Hz"):
        stream.accept(np.zeros(800, np.int16), 16000)
    edit(copy, lambda data: data["features"].update(sample_rate=8000))
    line = refusal(copy)
    assert "manifest.features.sample_rate: expected 16000 as the model was trained, found 8000" in line


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("features", "frame_shift_ms", 12.5, 10.0),
        ("features", "num_mel_bins", 40, MEL),
        ("features", "window", "hamming", "povey"),
        ("stream", "subsampling", 6, 4),
        ("stream", "right_context", 10, 6),
        ("stream", "static_chunk", 16, 0),
        ("caches", "dim", 32, 16),
        ("caches", "blocks", 3, 2),
        ("caches", "heads", 4, 2),
    ],
)
def test_a_manifest_that_contradicts_its_model(
    copy: Path, refusal: Refusal, section: str, name: str, value: Any, expected: Any
) -> None:
    edit(copy, lambda data: data[section].update({name: value}))
    line = refusal(copy)
    assert f"manifest.{section}.{name}: expected {expected!r} as the model was trained, found {value!r}" in line
    assert "u2edge convert CKPT -o BUNDLE" in line


def test_dither_and_names_are_choices(copy: Path) -> None:
    edit(copy, lambda data: (data["features"].update(dither=1.0), data.update(name="other")))
    assert Bundle.open(copy).manifest.features.dither == 1.0


def test_another_token_table(copy: Path, refusal: Refusal) -> None:
    """Of the same size, of another size, and passed off as the right one."""
    lines = (copy / "tokens.txt").read_text("utf-8").splitlines()
    swapped = [line.split(" ")[0] for line in lines]
    swapped[4], swapped[5] = swapped[5], swapped[4]
    (copy / "tokens.txt").write_text("".join(f"{symbol} {i}\n" for i, symbol in enumerate(swapped)), "utf-8")
    line = refusal(copy)
    assert "tokens.txt: expected SHA-256 " in line and "not the table the model was trained with" in line
    with pytest.raises(ValueError, match="not the table the model was trained with"):
        Recognizer.load(copy, verify=False)
    (copy / "tokens.txt").write_text("".join(f"{symbol} {i}\n" for i, symbol in enumerate([*swapped, "x"])), "utf-8")
    edit(copy, lambda data: data["checksums"].update({"tokens.txt": sha256(copy / "tokens.txt")}))
    assert "tokens.txt: expected 12 tokens, found 13; convert the checkpoint again" in refusal(copy)
    edit(copy, lambda data: data["tokens"].update(size=13))
    assert "manifest.tokens.size: expected 12 as the model was trained, found 13" in refusal(copy)


def test_graphs_of_another_model(
    copy: Path, make_experiment: Callable[..., Path], tmp_path: Path, refusal: Refusal
) -> None:
    """Even when whoever swapped them corrected the checksums."""
    other = convert(make_experiment(output_dim=9, seed=1), tmp_path / "other").directory
    shutil.copy(other / "encoder.onnx", copy)
    size = (copy / "encoder.onnx").stat().st_size
    edit(copy, lambda data: data["checksums"].update({"encoder.onnx": sha256(copy / "encoder.onnx")}))
    assert "expected " in refusal(copy)
    edit(copy, lambda data: data["encoder"].update(bytes=size))
    assert "expected output 'log_probs' as tensor(float) (1, ?, 12), found tensor(float) (1, " in refusal(copy)


def test_unknown_engine_and_device(tiny_bundle: Path, refusal: Refusal) -> None:
    assert "device: expected CPU for the onnxruntime engine, found 'GPU'" in refusal(tiny_bundle, "--device", "GPU")
    with pytest.raises(RuntimeError, match=r"engine: expected one of onnxruntime.*found 'tensorrt'"):
        Recognizer.load(tiny_bundle, EngineConfig("tensorrt"))
    with pytest.raises(RuntimeError, match=r"device: expected .*found 'NPU'"):
        Recognizer.load(tiny_bundle, EngineConfig(device="npu"))


def test_versions(copy: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer bundle asks for a newer u2edge, an older one for another conversion."""
    edit(copy, lambda data: (data.update(schema_version=SCHEMA_VERSION + 1), data["tools"].update(u2edge="9.1")))
    line = refusal(copy)
    assert f"expected schema_version {SCHEMA_VERSION}, found {SCHEMA_VERSION + 1} (written by u2edge 9.1)" in line
    assert line.endswith("the bundle is newer than this u2edge; update u2edge: pip install --upgrade u2edge")
    assert "convert" not in line
    for bad in (0, -1, "1", None, True, 1.5, [1]):
        edit(copy, lambda data, bad=bad: data.update(schema_version=bad))
        assert f"found {bad!r}: not a bundle that u2edge wrote" in refusal(copy)
    # This bundle, read by the u2edge after the next change of the schema.
    edit(copy, lambda data: data.update(schema_version=SCHEMA_VERSION))
    monkeypatch.setattr(manifest_module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    line = refusal(copy)
    assert "the bundle is older than this u2edge reads; convert the checkpoint again: u2edge convert" in line


def test_fields_of_a_newer_writer_are_ignored_and_listed(copy: Path) -> None:
    before = Bundle.open(copy).manifest
    edit(
        copy,
        lambda data: (
            data.update(licence="x"),
            data["stream"].update(lookahead={"a": [1]}),
            data["calibration"].update(z=1),
        ),
    )
    text = (copy / "manifest.json").read_text("utf-8")
    assert sorted(unknown_fields(text)) == ["manifest.licence", "manifest.stream.lookahead"]
    after = Bundle.open(copy).manifest
    assert (after.stream, after.tokens, after.features) == (before.stream, before.tokens, before.features)
    assert after.calibration == {**before.calibration, "z": 1}, "free-form sections know no unknown fields"
    assert Recognizer.load(copy, EngineConfig(threads=1)).stream() is not None


def test_fields_of_an_older_writer_are_defaults_but_not_all(copy: Path) -> None:
    edit(copy, lambda data: (data["stream"].pop("reencode"), data["features"].pop("dither"), data.pop("calibration")))
    manifest = Bundle.open(copy).manifest
    assert (manifest.stream.reencode, manifest.features.dither, manifest.calibration) == (False, 0.0, {})
    edit(copy, lambda data: data["stream"].pop("subsampling"))
    with pytest.raises(ManifestError, match=r"manifest\.stream: field 'subsampling' is missing"):
        Bundle.open(copy)


@pytest.mark.parametrize("value", [False, True])
def test_fields_that_have_gone_are_ignored_without_a_word(copy: Path, value: bool) -> None:
    """Before int8 sums were exact everywhere, a bundle said whether its weights were small enough for them to be."""
    before = Bundle.open(copy).manifest
    edit(copy, lambda data: [data[graph].update(reduce_range=value) for graph in ("encoder", "decoder")])
    assert unknown_fields((copy / "manifest.json").read_text("utf-8")) == ()
    assert Bundle.open(copy).manifest == before
    # The same name elsewhere is as unknown as any other.
    edit(copy, lambda data: data["stream"].update(reduce_range=value))
    assert unknown_fields((copy / "manifest.json").read_text("utf-8")) == ("manifest.stream.reduce_range",)


def test_what_is_written_is_read_again(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest and unknown_fields(manifest.to_json()) == ()
