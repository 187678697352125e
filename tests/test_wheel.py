"""The wheel, installed into an environment that has nothing else, in a folder far from the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from places import ROOT

LARGEST = 9_000_000  # bytes: what a user downloads
SPOKEN = {
    path.stem: path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    for path in sorted((ROOT / "models" / "reference" / "samples").glob("*.flac"))
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stdout + done.stderr:
        pytest.skip("no package index can be reached, and a wheel is built and installed from one")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment's programs."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "v", with_pip=True)
    programs = folder / "v" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(pip, cwd=folder, capture_output=True, text=True, check=False, env=_clean(folder))
    assert done.returncode == 0, done.stderr
    return programs


def _clean(home: Path) -> dict[str, str]:
    """Nothing that leads back to the repository, or to what earlier runs remember."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"XDG_CACHE_HOME": str(home / "cache")}


def start(installed: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(installed / "u2edge"), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=_clean(folder), stdout=pipe, stderr=pipe, text=True)


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST


def test_demo_transcribe_and_doctor_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """What the samples say is written beside them by hand."""
    demo = start(installed, tmp_path, "demo", "--device", "none")
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    samples = sorted((site / "edge" / "assets" / "samples").glob("*.flac"))
    assert [sample.stem for sample in samples] == [*SPOKEN]
    transcribe = start(installed, tmp_path, "transcribe", *map(str, samples), "--json", "--no-partials")
    out, err = transcribe.communicate(timeout=300)
    assert transcribe.returncode == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    texts = {Path(row["file"]).stem: row["text"] for row in rows if row["type"] == "final"}
    assert texts == SPOKEN
    doctor = start(installed, tmp_path, "doctor", "--json", "--no-microphone", "--seconds", "0.1")
    out, err = doctor.communicate(timeout=300)
    assert doctor.returncode == 0, out + err
    assert "matches" not in err and json.loads(out)
    out, err = demo.communicate(timeout=300)
    assert demo.returncode == 0, err
    assert all(f"recognised: {text}" in out for text in SPOKEN.values()), out


@pytest.mark.parametrize(
    ("command", "extra"),
    [("convert", "convert"), ("calibrate", "convert"), ("quantize", "quant"), ("wer", "wer"), ("report", "quant")],
)
def test_a_missing_extra_is_named(installed: Path, tmp_path: Path, command: str, extra: str) -> None:
    more = {
        "convert": ["x", "-o", "y"],
        "wer": ["-d", "x"],
        "report": ["-a", "x", "-b", "y"],
    }
    done = start(installed, tmp_path, command, *more.get(command, []))
    _, err = done.communicate(timeout=60)
    assert done.returncode == 1 and err.count("\n") == 1, err
    assert err.rstrip().endswith(f"type: pip install 'u2edge[{extra}]'"), err
