"""The u2edge command as a user meets it: in processes of its own, with good input and with every kind of bad one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from places import ROOT

from edge.export.convert import convert
from edge.model.checkpoint import load_experiment
from edge.runtime import Bundle, DecodeOptions, Recognizer
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from u2edge import cli

BLOCKED = ("torch", "onnx", "openvino", "yaml", "safetensors", "neural_compressor")

WITHOUT_TORCH = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import edge.runtime
from u2edge.cli import main
for arguments in sys.argv[1].split("|"):
    sys.argv = ["u2edge", *arguments.split("~")]
    try:
        main()
    except SystemExit as stop:
        print("exit", stop.code or 0, flush=True)
assert not set(sys.modules) & set({BLOCKED})
"""


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "u2edge", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on standard error, of a command that failed."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def speech(seconds: float, rate: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose model hears tokens in noise and blank in silence; one of its tokens is not ASCII."""
    folder = make_experiment()
    path = folder / "units.txt"
    path.write_text(path.read_text("utf-8").replace("d 7", "語 7"), "utf-8")
    model, state = load_experiment(folder).build(), torch.load(folder / "final.pt", weights_only=True)
    means = []
    for samples in (np.zeros(32000, np.float32), speech(2, 16000)):
        feats = torch.from_numpy(StreamingFbank(FeatureOptions(num_mel_bins=20)).accept(samples))[None]
        with torch.inference_mode():
            means.append(model.encoder(feats, torch.tensor([feats.size(1)]), 16, -1)[0][0].mean(0))
    silence, noise = means
    direction = 10 * (silence - noise)
    state["ctc.ctc_lo.weight"][0] = direction
    state["ctc.ctc_lo.bias"][0] = -direction @ (silence + noise) / 2
    torch.save(state, folder / "final.pt")
    return convert(folder, tmp_path_factory.mktemp("cli") / "bundle").directory


def test_json_lines_of_a_stereo_file(bundle: Path, tmp_path: Path) -> None:
    """44.1 kHz, 16 bit, two channels; the recognizer itself gives the expected text from the same channel."""
    mono = speech(3, 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([mono, mono], 1), 44100, subtype="PCM_16")
    done = run("transcribe", tmp_path / "a.wav", "--bundle", bundle, "--json", "--nbest", 3, "--chunk-ms", 320)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["file"] for line in lines} == {str(tmp_path / "a.wav")}
    assert [line["type"] for line in lines[-2:]] == ["final", "summary"]
    partials, final, summary = lines[:-2], lines[-2], lines[-1]
    assert len(partials) >= 3 and {line["type"] for line in partials} == {"partial"}
    ends = [line["end_ms"] for line in partials]
    assert ends == sorted(ends) and ends[0] <= 640
    left, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    results = Recognizer.load(bundle).transcribe(left[:, 0], rate, DecodeOptions(chunk=8))
    expected = [result.text for result in results]
    assert [final["text"]] == expected and "語" in final["text"]
    assert len(final["nbest"]) == 3 and final["nbest"][0]["text"] == final["text"]
    assert final["tokens"] and all(0 <= token["start_ms"] <= token["end_ms"] <= 3000 for token in final["tokens"])
    assert summary["audio_s"] == 3.0 and summary["chunks"] == 10 and summary["utterances"] == 1


def test_text_for_people(bundle: Path, tmp_path: Path) -> None:
    """Transcripts alone on standard output; a terminal that cannot show a token gets its code, not a traceback."""
    soundfile.write(tmp_path / "a.flac", speech(2, 16000), 16000)
    done = run("transcribe", tmp_path / "a.flac", "-b", bundle, "--full-context", "--no-partials")
    assert done.returncode == 0 and "語" in done.stdout and done.stdout.count("\n") == 1
    assert "loaded in" in done.stderr and "2.0 s of audio, RTF 0." in done.stderr
    narrow = run("transcribe", tmp_path / "a.flac", "-b", bundle, "--full-context", PYTHONIOENCODING="ascii")
    assert narrow.returncode == 0 and narrow.stdout == done.stdout.replace("語", "\\u8a9e")


def test_special_tokens_alone_are_no_text(make_experiment: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_experiment()
    (folder / "units.txt").write_text("".join(f"<{i}> {i}\n" for i in range(12)))
    convert(folder, tmp_path / "bundle")
    soundfile.write(tmp_path / "a.wav", speech(2, 16000), 16000)
    done = run("transcribe", tmp_path / "a.wav", "-b", tmp_path / "bundle")
    assert (done.returncode, done.stdout) == (0, "") and "no speech recognised" in done.stderr


def test_silence_is_no_text(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros(160_000, np.int16), 16000)
    soundfile.write(tmp_path / "one.wav", np.zeros(1, np.int16), 16000)
    done = run("transcribe", tmp_path / "s.wav", "-b", bundle)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{tmp_path / 's.wav'}: no speech recognised" in done.stderr and "10.0 s of audio" in done.stderr
    done = run("transcribe", tmp_path / "s.wav", tmp_path / "one.wav", "-b", bundle, "--json")
    summaries = [line for line in map(json.loads, done.stdout.splitlines()) if line["type"] != "partial"]
    assert done.returncode == 0 and [line["type"] for line in summaries] == ["summary", "summary"]
    assert [line["audio_s"] for line in summaries] == [10.0, 0.0]


def test_bad_audio(bundle: Path, tmp_path: Path) -> None:
    """Each bad file alone is one line and exit code 1; among others, the rest is still transcribed."""
    files = {
        name: tmp_path / f"{name}.wav" for name in ("empty", "text", "nan", "header", "channels", "missing", "good")
    }
    files["empty"].touch()
    files["text"].write_text("hello world\n" * 100)
    soundfile.write(files["nan"], np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(files["header"], np.zeros(0, np.int16), 16000)
    soundfile.write(files["channels"], np.zeros((16000, 80), np.int16), 16000)
    soundfile.write(files["good"], speech(2, 16000), 16000)
    expected = {
        files["empty"]: "expected audio, found an empty file (0 bytes)",
        files["text"]: "expected WAV, FLAC, Ogg, Opus or MP3, found something else",
        files["nan"]: "expected finite samples, found 1600 of 1600 that are not (first: nan at frame 0)",
        files["header"]: "expected audio, found a header and no samples",
        files["channels"]: "found (1600, 80)",
        files["missing"]: "no such audio file",
        tmp_path: "found a directory",
    }
    for path in (files["text"], files["nan"], tmp_path):
        done = run("transcribe", path, "-b", bundle, "--json")
        assert f"error: {path}: " in error_of(done) and expected[path] in done.stderr
        assert done.stdout == ""
    together = run("transcribe", *expected, files["good"], "-b", bundle, "--json")
    assert together.returncode == 1
    errors = together.stderr.splitlines()
    assert len(errors) == len(expected)
    for line, (path, text) in zip(errors, expected.items(), strict=True):
        assert line.startswith(f"error: {path}: ") and text in line
    assert {json.loads(line)["file"] for line in together.stdout.splitlines()} == {str(files["good"])}


def test_bad_bundles(bundle: Path, pristine: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(bundle, tmp_path / "altered")
    data = bytearray((altered / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (altered / "decoder.onnx").write_bytes(data)
    for folder, text in (
        (altered, "decoder.onnx: expected SHA-256 "),
        (pristine, "expected manifest.json, found none; this is a WeNet experiment; u2edge convert CKPT -o BUNDLE"),
        (tmp_path, "expected manifest.json, found none"),
        (tmp_path / "nowhere", "expected a bundle directory, found nothing"),
        ("x" * 300, "File name too long"),
    ):
        done = run("transcribe", "a.wav", "-b", folder, "--json")
        assert str(folder) in error_of(done) and text in done.stderr


def test_bad_options(bundle: Path) -> None:
    """What the model does not support is one line that lists what it does; what no model does is a usage error."""
    for options, text in (
        (["--chunk-ms", "50"], "chunk_ms: expected a multiple of 40 ms, found 50; nearest: 40 or 80; supported: "),
        (["--chunk-ms", "nan"], "chunk_ms: expected a positive number, found nan"),
        (["--left-chunks", "-2"], "left_chunks: expected -1 (all), 0 or more, found -2"),
        (["--full-context", "--chunk-ms", "640"], "full_context: expected no chunk"),
    ):
        assert text in error_of(run("transcribe", "a.wav", "-b", bundle, "--json", *options))
    for options in (["--chunks", "8"], ["--beam", "0"], ["--threads", "1000"], ["--chunk-ms", "fast"]):
        done = run("transcribe", "a.wav", "-b", bundle, *options)
        assert done.returncode == 2 and options[0] in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_stops_reading(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(2, 16000), 16000)
    command = [sys.executable, "-m", "u2edge", "transcribe", *[str(tmp_path / "a.wav")] * 3, "-b", str(bundle)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) != 0


def test_a_device_without_torch(bundle: Path, pristine: Path, tmp_path: Path) -> None:
    """Recognition works, conversion says what to install; neither imports torch, onnx or yaml on the way."""
    soundfile.write(tmp_path / "a.wav", speech(2, 16000), 16000)
    commands = f"transcribe~{tmp_path / 'a.wav'}~-b~{bundle}~--no-partials|convert~{pristine}~-o~{tmp_path / 'out'}"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, commands], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    text, *codes = done.stdout.splitlines()
    assert codes == ["exit 0", "exit 1"] and "語" in text, done
    hint = done.stderr.splitlines()[-1]
    assert hint == "error: this command needs torch; type: pip install 'u2edge[convert]'"
    assert not (tmp_path / "out").exists()


def test_convert_from_a_strange_path(pristine: Path, tmp_path: Path) -> None:
    """Spaces, brackets that look like markup, quotes and letters of other scripts."""
    name = "exp [bold] 模型 it's :smile:"
    source, out = shutil.copytree(pristine, tmp_path / name), tmp_path / f"{name} out"
    done = run("convert", source, "-o", out)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{source}: 0.0 M parameters, conformer 2 x 16 (4 experts, 2 active), conv2d, ")
    assert lines[-2].startswith(f"wrote {out} (") and f"{tmp_path}/exp" in lines[-1]
    assert Bundle.open(out).manifest.name == name
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name} out"]


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """The command in this process, where torch is loaded already: exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["u2edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().err


def test_convert_refuses_in_one_line(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    assert call(monkeypatch, capsys, "convert", experiment, "-o", out)[0] == 0
    code, err = call(monkeypatch, capsys, "convert", experiment, "-o", out)
    assert code == 1 and err.splitlines()[-1].startswith(f"error: {out}: a bundle is already there")
    assert call(monkeypatch, capsys, "convert", experiment, "-o", out, "--force", "--storage", "fp16")[0] == 0
    assert Bundle.open(out).manifest.encoder.storage == "fp16"

    state = torch.load(experiment / "final.pt", weights_only=True)
    torch.save({**state, "ctc.x\n\x1b[31m": torch.zeros(1)}, experiment / "final.pt")
    (tmp_path / "file").touch()
    for checkpoint, target, text in (
        (experiment, out, r"final.pt: surplus key 'ctc.x\n\x1b[31m' (1,)"),
        (tmp_path / "nowhere", out, "nowhere: no such file or directory"),
        (tmp_path / ("x" * 300), out, "File name too long"),
        (tmp_path / "a\nb", out, "a b: no such file or directory"),
    ):
        code, err = call(monkeypatch, capsys, "convert", checkpoint, "-o", target, "--force")
        assert code == 1 and err.startswith("error: ") and err.count("\n") == 1 and text in err, err

    # Found only after the graphs are written: another model there, a file in the way, graphs that do not agree.
    torch.save(state, experiment / "final.pt")
    for target, text in ((tmp_path, "found other files"), (tmp_path / "file", "found a file"), ("file/x", "file")):
        code, err = call(monkeypatch, capsys, "convert", experiment, "-o", target, "--force")
        assert code == 1 and err.splitlines()[-1].startswith("error: ") and text in err.splitlines()[-1], err
    state["decoder.left_decoder.output_layer.weight"].fill_(3e38)
    torch.save(state, experiment / "final.pt")
    code, err = call(monkeypatch, capsys, "convert", experiment, "-o", out, "--force")
    assert code == 1 and err.splitlines()[-1].startswith("error: decoder: ONNX Runtime differs from torch by nan")
    assert Bundle.open(out).manifest.encoder.storage == "fp16", "the old bundle must survive"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exp", "file", "out"]
