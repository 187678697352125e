"""The terminal: what it prints, and which of window and terminal is shown."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_helpers import BUNDLE, INT8, ROOT, SAMPLES, Feed, running, sample, settings, transcribed
from rich.console import Console

from demo import launch, terminal
from demo.events import Ended, ExpertLoad, Heard, Meters, Notice, Partial, Ready, Severity
from demo.terminal_view import View
from edge.runtime import EdgeError, Result
from edge.system import assets


@pytest.fixture(autouse=True)
def no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def spoken(index: int) -> str:
    return SAMPLES[index].with_suffix(".txt").read_text(encoding="utf-8").strip()


def test_a_file_as_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chosen = settings(chunk_ms=320.0)
    assert terminal.run(chosen, [SAMPLES[0]], None, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reference  fp32, 320 ms chunks, 1 thread, onnxruntime on CPU")
    assert lines[1] == f"playing {SAMPLES[0]} at real-time pace"
    assert lines[2] == f"  spoken:     {spoken(0)}"
    expected = transcribed(sample(0), chosen.decode())[0].text
    assert f"  recognised: {expected}" in lines
    partials = [line.split("… ")[1] for line in lines if "… " in line]
    assert len(partials) >= 3 and partials == sorted(partials, key=len), "text that grows, printed when it changes"
    assert any(line.startswith("  3.1 s, RTF ") and "after its sound" in line for line in lines)
    assert any("saved 3.1 s" in line for line in lines)
    assert len(list(tmp_path.glob("u2edge-*"))) == 4


def test_without_microphone_it_says_so_and_plays_the_samples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Any, device: str | None = None, channel: int | None = None) -> None:
        raise EdgeError("no microphone found; plug one in")

    monkeypatch.setattr("demo.audio.supervisor.MicrophoneSource.__init__", refuse)
    (tmp_path / "only.flac").write_bytes(SAMPLES[0].read_bytes())
    monkeypatch.setattr(assets, "samples", lambda: tmp_path)
    assert terminal.run(settings(compare=INT8), [], None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "no microphone found; plug one in" in lines
    assert f"playing {tmp_path / 'only.flac'} at real-time pace" in lines
    assert f"  fp32        {spoken(0)}" in lines and f"  static      {spoken(0)}" in lines
    with pytest.raises(EdgeError, match="plug one in"):
        terminal.run(settings(), [], "the one I asked for")
    monkeypatch.setattr(assets, "samples", lambda: tmp_path / "none")
    with pytest.raises(EdgeError, match=r"u2edge demo recording\.wav"):
        terminal.run(settings(), [], "none")


@pytest.mark.parametrize(
    ("changes", "file", "message"),
    [
        ({"bundle": Path("/nonexistent")}, SAMPLES[0], "u2edge convert"),
        ({"chunk_ms": 333.0}, SAMPLES[0], "nearest: 320 or 360"),
        ({}, Path(__file__), "expected WAV"),
        ({}, Path("/nonexistent.wav"), "no such audio file"),
    ],
)
def test_what_is_refused_is_an_error(changes: dict[str, Any], file: Path, message: str) -> None:
    with pytest.raises(EdgeError, match=message):
        terminal.run(settings(**changes), [file], None)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_it_with_a_summary(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "u2edge", "demo", "--tui", *map(str, SAMPLES), "--bundle", str(BUNDLE)]
    command += ["--record", str(tmp_path), "--chunk-ms", "320"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "…" in line and len(lines) < 100:
                process.send_signal(signal.SIGINT)
                break
        lines += process.stdout.readlines()
        assert process.wait(30) == 0
    text = "".join(lines)
    assert text.count("playing") == 1, "the other files are not played"
    assert "stopped after" in text and "Traceback" not in text
    assert len(list(tmp_path.glob("u2edge-*.wav"))) == 1


def test_a_terminal_is_redrawn_in_a_few_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=70, color_system=None)
    with running(settings(compare=INT8, chunk_ms=320.0)) as watched:
        watched.heard(Feed(sample(0)))
    view = View(console)
    view.begin()
    for event in watched.events:
        if isinstance(event, Ready):
            view.ready(event)
        elif isinstance(event, Notice):
            view.notice(event)
        elif not isinstance(event, Ended):
            view.see(event)
    long = Result("and " * 200 + "the end", 0, 0, False, 0)
    view.see(Partial(0, long, 5.0))
    view.notice(Notice("overload", "too slow", Severity.WARNING))
    with console.capture() as capture:
        console.print(view.draw())
    lines = capture.get().splitlines()
    assert len(lines) <= 10 and all(len(line) <= 70 for line in lines)
    assert "the end" in capture.get() and "too slow" in capture.get()
    assert any(line.startswith("  experts ") and set("▁▂▃▄▅▆▇█") & set(line) for line in lines)
    assert any("dB" in line for line in lines) and any("RTF" in line for line in lines)
    view.notice(Notice("overload", ""))
    with console.capture() as capture:
        console.print(view.draw())
    assert "too slow" not in capture.get()


def test_level_and_notices_as_lines() -> None:
    output = io.StringIO()
    console = Console(file=output, width=70)
    view = View(console)
    view.begin()
    for seconds in ("2.0", "3.5", "4.0"):
        view.notice(Notice("overload", f"{seconds} s behind", Severity.WARNING))
    view.notice(Notice("recording", "saved it"))
    assert output.getvalue().splitlines() == ["  2.0 s behind", "  saved it"]
    view.see(Heard(np.zeros((250, 80), np.float32), np.zeros((250, 2), np.float32), -30.0, -20.0))
    view.see(Meters(0, 12.0, 20.0, 0.25, 0.0, 50.0, 100.0, 0))
    view.see(ExpertLoad(0, np.zeros((0, 0), np.float32), np.zeros(0, np.float32)))
    with console.capture() as capture:
        console.print(view.draw())
    assert "█" * 10 + "·" * 10 + "  -30 dB" in capture.get()
    view.summary(stopped=False)
    assert output.getvalue().splitlines()[-1] == "  2.5 s, RTF 0.250, chunk p50 12.0 ms"


def test_window_or_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    class Window:
        found = ""

        @staticmethod
        def run(*_: Any) -> int:
            shown.append("window")
            return 7

        @classmethod
        def problem(cls) -> str:
            return cls.found

    def present(name: str) -> Any:
        return object()

    monkeypatch.setattr(terminal, "run", lambda *_: shown.append("terminal") or 3)
    monkeypatch.setattr(launch, "_window", lambda: Window)
    monkeypatch.setattr(launch.display, "problem", Window.problem)
    monkeypatch.setattr(launch.importlib.util, "find_spec", present)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert launch.run(settings(), [], None, None, False) == 3
    assert "no display" in capsys.readouterr().out
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert launch.run(settings(), [], None, None, False) == 7
    assert launch.run(settings(), [], None, None, True) == 3
    assert capsys.readouterr().out == "", "who asked for the terminal need not read what a window lacks"
    Window.found = "Qt lacks libraries of X11"
    assert launch.run(settings(), [], None, None, False) == 3
    assert "no window: Qt lacks" in capsys.readouterr().out
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None if name == "pyqtgraph" else object())
    assert launch.run(settings(), [], None, None, False) == 3
    assert "pyqtgraph not installed; type: pip install 'u2edge[window]'" in capsys.readouterr().out

    def broken() -> Any:
        raise ImportError("libEGL.so.1: cannot open shared object file")

    monkeypatch.setattr(launch.importlib.util, "find_spec", present)
    monkeypatch.setattr(launch, "_window", broken)
    assert launch.run(settings(), [], None, None, False) == 3
    assert "libEGL.so.1" in (out := capsys.readouterr().out) and "apt install" in out
    assert shown == ["terminal", "window", *["terminal"] * 4]


def test_the_core_needs_no_qt_and_no_torch() -> None:
    code = "import demo.session, demo.terminal, demo.launch, sys; "
    code += "print([m for m in ('PySide6', 'torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
