"""u2edge doctor on this machine, and on machines made worse: no PortAudio, no sounddevice, a damaged bundle, one core,
packages that crash or hang. No timing is judged, and no microphone is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from edge.system import distro
from edge.system.child import ask
from edge.system.versions import version
from u2edge.doctor import cpu, speed
from u2edge.doctor.report import as_text, exit_code
from u2edge.doctor.section import Section, guarded

CPU = cpu.Cpu("Test", "x86_64", 4, 8, 8, 4, None, ("avx2", "avx512f", "avx512_vnni"), "", 16000, 8000)


def run(*arguments: object, cwd: Path = ROOT, before: str = "", **environment: str) -> dict[str, Any]:
    """``u2edge doctor --json``: its object. ``before``: Python that runs first, in it and in every child."""
    path = [str(ROOT)]
    if before:
        folder = Path(environment.pop("SITE"))
        (folder / "sitecustomize.py").write_text(before)
        path.insert(0, str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "u2edge", "doctor", "--json", "--seconds", "0.1", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stderr, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == data["exit_code"]
    return data


def problems(data: dict[str, Any], section: str, level: str = "warning") -> list[dict[str, str]]:
    return [p for p in data["problems"] if (p["section"], p["level"]) == (section, level)]


def test_this_machine(tiny_bundle: Path, tmp_path: Path) -> None:
    """Whole, with a report; the facts agree with what Python itself knows."""
    data = run("-b", tiny_bundle, "--report", cwd=tmp_path)
    assert data["exit_code"] == 0
    assert json.loads((tmp_path / "u2edge-doctor.json").read_text("utf-8")) == data
    assert [p.name for p in tmp_path.iterdir()] == ["u2edge-doctor.json"]
    sections = data["sections"]
    assert list(sections) == ["processor", "engines", "microphones", "display", "bundle", "speed"]
    assert not any("failed" in facts and facts["failed"] for name, facts in sections.items() if name != "microphones")
    processor = sections["processor"]
    assert processor["logical"] == os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        assert processor["usable"] == len(os.sched_getaffinity(0))
    import onnxruntime

    assert sections["engines"]["versions"]["onnxruntime"] == onnxruntime.__version__
    assert sections["bundle"]["ok"] is True and sections["bundle"]["schemes"] == ["fp32"]
    first = sections["speed"]["runs"][0]
    assert (first["engine"], first["failed"]) == ("onnxruntime", "")
    assert [row["chunk_ms"] for row in first["chunks"]] == [160, 320, 640, 1280]
    for row in first["chunks"]:
        assert row["rtf"] > 0 and 0 < row["p50_ms"] <= row["p95_ms"] and row["chunks"] >= 3
    rtf = first["chunks"][2]["rtf"]
    idle = speed.idle_percent(rtf)
    assert sections["speed"]["verdict"].startswith("your machine runs this bundle at RTF ")
    assert sections["speed"]["verdict"].endswith(f"chunks of 640 ms leave {idle} % idle")
    for microphone in sections["microphones"].get("devices", []):
        assert microphone["host"] and set(microphone["rates"]) <= set(range(8000, 96001))
    assert str(tmp_path) not in json.dumps(data) and str(tiny_bundle.parent) not in json.dumps(data)


def test_text_for_people(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "u2edge", "doctor", "-b", str(tiny_bundle), "--no-microphone", "--seconds", "0.1"],
        cwd=ROOT,
        env={**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done
    for title in ("processor ", "engines ", "microphones ", "display ", "bundle ", "speed "):
        assert sum(line.startswith(title) for line in done.stdout.splitlines()) == 1
    assert "your machine runs this bundle at RTF" in done.stdout
    if sys.platform.startswith("linux"):
        assert "note: no display" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(("transcribing works", "all is well"))


def test_without_portaudio(tiny_bundle: Path, tmp_path: Path) -> None:
    """The real sounddevice, which cannot find the library."""
    if not version("sounddevice"):
        pytest.skip("sounddevice is not installed")
    if not sys.platform.startswith("linux"):
        pytest.skip("the wheels of sounddevice for macOS and Windows bring PortAudio")
    hide = (
        "import ctypes.util as u\nfind = u.find_library\n"
        "u.find_library = lambda name: None if 'portaudio' in name else find(name)\n"
    )
    data = run("-b", tiny_bundle, before=hide, SITE=str(tmp_path))
    assert data["exit_code"] == 0, "files can still be transcribed"
    (found,) = problems(data, "microphones")
    assert found["text"].startswith("the PortAudio library is missing")
    assert found["fix"] == distro.install_portaudio()
    assert data["sections"]["speed"]["runs"][0]["chunks"]


def test_without_sounddevice(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise ModuleNotFoundError('No module', name='sounddevice')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", "from u2edge.doctor import audio; s = audio.examine(True); print(s.problems[0].fix)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "pip install 'u2edge[demo]'", done


def test_damaged_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    content = bytearray((damaged / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "encoder.onnx").write_bytes(content)
    data = run("-b", damaged, "--no-microphone")
    (found,) = problems(data, "bundle", "error")
    assert data["exit_code"] == 1
    assert (
        found["text"].startswith("damaged/encoder.onnx: expected SHA-256 ") and "copy the bundle again" in found["fix"]
    )
    assert data["sections"]["speed"]["runs"] == [], "a damaged bundle is not measured"
    assert data["sections"]["processor"]["model"], "and the rest is still said"


def test_no_bundle(tmp_path: Path) -> None:
    data = run("-b", tmp_path / "nowhere", "--no-microphone")
    (found,) = problems(data, "bundle", "error")
    assert data["exit_code"] == 1 and found["fix"] == "make one: u2edge convert CKPT -o BUNDLE"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can be taken away on Linux only")
def test_one_core(tiny_bundle: Path, tmp_path: Path) -> None:
    data = run(
        "-b",
        tiny_bundle,
        "--no-microphone",
        before="import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n",
        SITE=str(tmp_path),
    )
    assert data["sections"]["processor"]["usable"] == 1
    (found,) = problems(data, "processor")
    assert "one core" in found["text"] and "--chunk-ms" in found["fix"]
    assert data["sections"]["speed"]["runs"][0]["threads"] == 1


def test_an_engine_that_crashes(tiny_bundle: Path, tmp_path: Path) -> None:
    """A package whose native code kills the process takes neither the doctor nor the other sections with it."""
    broken = tmp_path / "packages"
    broken.mkdir()
    (broken / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    data = run(
        "-b",
        tiny_bundle,
        "--no-microphone",
        before=f"import sys\nsys.path.insert(0, {str(broken)!r})\n",
        SITE=str(tmp_path),
    )
    assert data["exit_code"] == 1
    assert any(
        "SIGILL, an instruction this processor does not have" in p["text"] for p in problems(data, "engines", "error")
    )
    (verdict,) = problems(data, "speed", "error")
    assert verdict["text"] == "no engine can run this bundle on this machine"


@pytest.mark.parametrize("package", ["kaldi_native_fbank", "soundfile", "numpy", "onnxruntime"])
def test_a_package_that_cannot_be_imported(tiny_bundle: Path, tmp_path: Path, package: str) -> None:
    """``u2edge`` itself may not start then; ``python -m u2edge.doctor`` does, and names the package."""
    reason = "libsomething.so.6: cannot open shared object file"
    (tmp_path / f"{package}.py").write_text(f"raise OSError({reason!r})")
    done = subprocess.run(
        [sys.executable, "-m", "u2edge.doctor", str(tiny_bundle)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    name = package.replace("_", "-")
    assert f"error: {name} cannot be used: {reason}" in done.stdout
    assert f"fix: pip install --force-reinstall {name}" in done.stdout
    assert json.loads((tmp_path / "u2edge-doctor.json").read_text("utf-8"))["exit_code"] == 1


def test_a_child_that_hangs_or_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said before is kept; it is ended in time; chatter of libraries is no answer."""
    (tmp_path / "sick.py").write_text(
        "import os, time\nfrom edge.system.child import say, serve\n"
        "def probe(task):\n"
        "    print('ALSA lib chatter')\n"
        "    say(first=task['n'])\n"
        "    if task['n'] == 1: time.sleep(60)\n"
        "    if task['n'] == 2: raise OSError('no such thing')\n"
        "    if task['n'] == 3: os.write(1, b'{\"second\": ')\n"
        "    if task['n'] == 4: os._exit(9)\n"
        "serve(probe)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    for number, failed in ((1, "no answer within 3 s"), (2, "OSError: no such thing"), (3, ""), (4, "exit code 9")):
        answer = ask("sick", {"n": number}, 3)
        assert answer.data == {"first": number} and (failed in answer.failed if failed else answer.failed == "")
    assert time.monotonic() - began < 50, "the hanging child was waited for"


def test_a_section_that_fails_is_reported(tmp_path: Path) -> None:
    def examine() -> Section:
        return Section("x", {"size": (tmp_path / "missing").stat().st_size}, [])

    section = guarded("thing", examine)
    assert section.title == "thing" and section.facts["failed"].startswith("FileNotFoundError")
    assert section.problems[0].level == "warning" and exit_code([section]) == 0
    assert "could not be examined" in as_text([section])
