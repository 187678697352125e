"""The window with real parts: real recordings through the real session, drawn offscreen and on a virtual X display."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from window_helpers import BUNDLE, INT8, ROOT, SAMPLES, SPOKEN, finals  # first: it skips where Qt is missing

# isort: split
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QLabel, QToolButton

from demo.events import Meters, Notice, Severity
from demo.window import files
from demo.window.main_window import MainWindow
from demo.window.theme import DARK, LIGHT, Look, contrast

pytest_plugins = ("window_fixtures",)


def test_a_recording_appears_grey_first_and_firms_up(qtbot: Any, window: MainWindow) -> None:
    view = window.stage.transcript
    seen: list[tuple[str, bool]] = []
    window.play([SAMPLES / "human-3.flac"])

    def finished() -> bool:
        if view.lines and not view.lines[-1].heading:
            last = (view.lines[-1].text, view.lines[-1].partial)
            if not seen or seen[-1] != last:
                seen.append(last)
        return finals(view) == [SPOKEN]

    qtbot.waitUntil(finished, timeout=30000)
    partials = [text for text, partial in seen if partial]
    assert len(partials) >= 2 and partials == [text for text, _ in seen[:-1]], "partials come before the final text"
    assert len(partials[0].split()) < len(SPOKEN.split())
    document = view.document().toPlainText().splitlines()
    assert document == ["human-3.flac", SPOKEN]
    assert float(window.stage.meters.text("latency").split()[0]) < 640 + 150
    assert window.stage.spectrogram.picture.max() > 100, "the spectrogram is not empty"
    share = window.stage.experts.share
    assert share.shape == (12, 8) and np.allclose(share.sum(1), 1, atol=1e-5)
    qtbot.waitUntil(lambda: not window.listening, timeout=10000)
    assert window.session.transcript().text == SPOKEN
    window.actions_.copy.trigger()
    assert QApplication.clipboard().text() == SPOKEN


def test_pointer_over_a_word_shows_when_it_was_said(qtbot: Any, window: MainWindow) -> None:
    view = window.stage.transcript
    window.play([SAMPLES / "human-1.flac"])
    qtbot.waitUntil(lambda: finals(view) == ["seven one three one"], timeout=30000)
    said = window.session.transcript().utterances[0].words[2]
    block = view.document().findBlockByNumber(1)
    cursor = view.textCursor()
    cursor.setPosition(block.position() + block.text().index("three") + 2)
    where = view.cursorRect(cursor).center()
    found = view.word_at(where)
    assert found is not None and found.text == "three"
    assert found.tip == (
        f"three: {said.start_ms / 1000:.2f} s – {said.end_ms / 1000:.2f} s, confidence {said.confidence:.0%}"
    )
    assert said.start_ms < said.end_ms
    assert view.word_at(QPoint(view.viewport().width() - 5, where.y())) is None


def test_switching_chunk_length_while_playing_keeps_the_text(qtbot: Any, window: MainWindow) -> None:
    view = window.stage.transcript
    window.play([SAMPLES / "human-1.flac", SAMPLES / "human-3.flac"])
    qtbot.waitUntil(lambda: finals(view) == ["seven one three one"], timeout=30000)
    qtbot.waitUntil(lambda: view.lines[-1].partial and len(view.lines[-1].words) >= 2, timeout=30000)
    before = view.lines[-1].text
    window.actions_.chunks[160].trigger()
    assert window.settings_bar.settings.chunk_ms == 160
    qtbot.waitUntil(lambda: window.session.settings.chunk_ms == 160, timeout=10000)
    assert view.lines[-1].text.startswith(before.split()[0])
    qtbot.waitUntil(lambda: len(finals(view)) == 2, timeout=30000)
    assert finals(view) == ["seven one three one", SPOKEN]


def test_two_bundles_side_by_side(qtbot: Any, window: MainWindow) -> None:
    qtbot.mouseClick(window.source_bar.compare, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.stage.comparing, timeout=30000)
    compare = window.stage.compare
    assert compare.isVisible() and not window.stage.transcript.isVisible()
    window.play([SAMPLES / "human-3.flac"])
    qtbot.waitUntil(lambda: all(finals(view) for view in compare.views), timeout=30000)
    assert finals(compare.views[0]) == [SPOKEN]
    words, differing = compare.count()
    right = finals(compare.views[1])[0].split()
    assert words == max(5, len(right)) and (differing == 0) == (right == SPOKEN.split())
    titles = [title.text() for title in compare.titles]
    sizes = [sum((path / f).stat().st_size for f in ("encoder.onnx", "decoder.onnx")) for path in (BUNDLE, INT8)]
    assert titles == ["fp32", "int8"] and [s.text() for s in compare.sizes] == [f"{n / 1e6:.1f} MB" for n in sizes]
    qtbot.waitUntil(lambda: all("RTF" in f.text() for f in compare.figures), timeout=10000)
    window.actions_.compare.trigger()
    qtbot.waitUntil(lambda: not window.stage.comparing, timeout=30000)
    assert finals(window.stage.transcript) == [SPOKEN], "the text is kept when compare mode ends"


def test_keyboard(qtbot: Any, window: MainWindow) -> None:
    window.activateWindow()
    qtbot.keyClick(window, Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
    assert window.settings_bar.settings.chunk_ms == 320
    qtbot.keyClick(window, Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
    assert window.settings_bar.settings.rescoring is False
    name = window.theme.palette.name
    qtbot.keyClick(window, Qt.Key.Key_T, Qt.KeyboardModifier.ControlModifier)
    assert window.theme.palette.name != name
    window.settings_bar.chunk.setFocus()
    qtbot.keyClick(window.settings_bar.chunk, Qt.Key.Key_Right)
    assert window.settings_bar.settings.chunk_ms == 640
    qtbot.keyClick(window, Qt.Key.Key_D, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: window.stage.comparing, timeout=30000)
    qtbot.keyClick(window, Qt.Key.Key_F1)
    dialog = QApplication.activeModalWidget()
    assert dialog is not None and dialog.windowTitle() == "Keyboard shortcuts"
    dialog.close()
    assert window.session.settings.compare is not None
    qtbot.waitUntil(lambda: window.session.settings.chunk_ms == 640, timeout=10000)
    assert window.session.settings.rescoring is False


def test_every_control_has_a_name_and_no_key_is_used_twice(window: MainWindow) -> None:
    for made in window.findChildren(QToolButton):
        if made.isVisible() and made.parent() is not window.menuBar():
            assert made.accessibleName() or made.toolTip(), made.text()
    keys = [action.shortcut().toString() for action in window.actions_.all() if not action.shortcut().isEmpty()]
    assert len(keys) == len(set(keys))
    texts = [b.text() for b in window.source_bar.findChildren(QToolButton)]
    texts += [label.text() for label in window.settings_bar.findChildren(QLabel)]
    texts += [action.text() for action in window.menuBar().actions()]
    letters = [text[text.index("&") + 1].lower() for text in texts if "&" in text]
    assert len(letters) >= 12 and len(letters) == len(set(letters)), letters


def test_tab_reaches_every_control(qtbot: Any, window: MainWindow) -> None:
    window.activateWindow()
    window.source_bar.listen.setFocus()
    reached = []
    for _ in range(20):
        widget = QApplication.focusWidget()
        assert widget is not None
        reached.append(widget.accessibleName())
        qtbot.keyClick(widget, Qt.Key.Key_Tab)
    for wanted in ("Listen", "Microphone", "Open", "Record", "Compare", "Left context", "Engine and device"):
        assert wanted in reached, f"{wanted} not in {reached}"
    assert any(name.startswith("Chunk length") for name in reached)
    order = [reached.index(n) for n in ("Listen", "Microphone", "Open", "Compare", "Left context")]
    assert order == sorted(order)


def test_notices_appear_replace_each_other_and_clear(qtbot: Any, window: MainWindow) -> None:
    notices = window.stage.notices
    window.play([ROOT / "no such file.wav"])
    qtbot.waitUntil(lambda: "file" in notices.texts(), timeout=10000)
    assert notices.isVisible() and "no such file" in notices.texts()["file"]
    assert not window.listening, "what could not be opened is not played"
    notices.take(Notice("level", "Too quiet.", Severity.WARNING))
    notices.take(Notice("level", "Too loud.", Severity.WARNING))
    assert notices.texts()["level"] == "Too loud."
    notices.take(Notice("level", ""))
    assert set(notices.texts()) == {"file"}
    qtbot.mouseClick(notices.close_button("file"), Qt.MouseButton.LeftButton)
    assert notices.texts() == {} and not notices.isVisible()


def test_refused_settings_go_back(qtbot: Any, window: MainWindow, tmp_path: Path) -> None:
    window.open_bundle(tmp_path)
    qtbot.waitUntil(lambda: "settings" in window.stage.notices.texts(), timeout=10000)
    qtbot.waitUntil(lambda: window.settings_bar.settings.bundle == BUNDLE, timeout=10000)
    assert window.settings_bar.precision.value == BUNDLE and "reference" in window.model


def test_theme_is_readable_and_switches(qtbot: Any, window: MainWindow) -> None:
    for palette in (LIGHT, DARK):
        for ink, paper in palette.readable_pairs():
            assert contrast(ink, paper) >= 4.5, f"{palette.name}: {ink} on {paper} is {contrast(ink, paper):.2f}"
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    window.play([SAMPLES / "human-1.flac"])
    qtbot.waitUntil(lambda: bool(finals(window.stage.transcript)), timeout=30000)
    for look, palette in ((Look.LIGHT, LIGHT), (Look.DARK, DARK)):
        window.actions_.looks[look].trigger()
        corner = window.grab().toImage().pixelColor(3, window.height() // 2).name()
        assert corner == palette.window and window.actions_.looks[look].isChecked()
        assert finals(window.stage.transcript) == ["seven one three one"]


def test_meters_out_of_bounds_stand_out(qtbot: Any, window: MainWindow) -> None:
    meters = window.stage.meters
    meters.show_meters(Meters(0, 7.25, 12.5, 1.2, 2500.0, 42.0, 310.0, 1))
    texts = [meters.text(k) for k in ("p50", "p95", "rtf", "lag", "cpu", "memory", "dropped")]
    assert texts == ["7.2 ms", "12 ms", "1.20", "2.5 s", "42 %", "310 MB", "1"]
    assert [meters.alarmed(k) for k in ("p50", "rtf", "lag", "dropped")] == [False, True, True, True]


def test_saved_transcript_has_the_text_and_times(qtbot: Any, window: MainWindow, tmp_path: Path) -> None:
    window.play([SAMPLES / "human-1.flac"])
    qtbot.waitUntil(lambda: bool(finals(window.stage.transcript)), timeout=30000)
    notice = files.save(tmp_path / "talk.txt", window.session.transcript())
    assert str(tmp_path / "talk") in notice.text and notice.severity is Severity.INFO
    assert "seven one three one" in (tmp_path / "talk.txt").read_text()
    assert "-->" in (tmp_path / "talk.srt").read_text() and (tmp_path / "talk.json").is_file()
    missing = files.save(tmp_path / "absent" / "talk.txt", window.session.transcript())
    assert missing.severity is Severity.ERROR


def test_references_to_none_are_not_lost(qtbot: Any, window: MainWindow) -> None:
    """PySide6 6.12.0 on Python 3.11 loses some 32 per drawn frame, and the interpreter aborts."""
    window.play([SAMPLES / "human-3.flac"])
    qtbot.waitUntil(lambda: len(window.lines) > 1, timeout=30000)
    gc.collect()  # former tests' windows hold some, and let them go when they like
    gc.disable()
    before = sys.getrefcount(None)
    for _ in range(1000):
        QApplication.processEvents()
        window.stage.spectrogram.update()
        time.sleep(0.001)
    lost = before - sys.getrefcount(None)
    gc.enable()
    assert lost < 100


def test_drawing_thread_never_waits(qtbot: Any, window: MainWindow) -> None:
    """Loading, switching and playing leave the event loop free."""
    longest, last = 0.0, time.monotonic()
    window.play([SAMPLES / "human-1.flac"])
    window.actions_.compare.trigger()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        QApplication.processEvents()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.002)
    assert window.stage.comparing
    assert longest < 0.5, f"the window stood still for {longest:.2f} s"


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="needs xvfb-run: sudo apt install xvfb xauth")
def test_window_on_a_real_x_display(tmp_path: Path) -> None:
    """Another process, with the X11 platform of Qt: recognises, and writes the picture of the README."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "xcb", "PYTHONPATH": str(ROOT)}
    out = tmp_path / "window.png"
    command = [sys.executable, "-m", "demo.window.screenshot", str(out), str(SAMPLES / "human-1.flac")]
    ran = subprocess.run(
        ["xvfb-run", "-a", "-s", "-screen 0 1280x800x24", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    if "libxcb" in ran.stderr or "xcb-cursor" in ran.stderr:
        pytest.skip(f"Qt's X11 platform lacks a library: {ran.stderr.strip().splitlines()[0]}")
    assert ran.returncode == 0, ran.stderr
    assert "seven one three one" in ran.stdout and out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_closes_window_and_session(which: signal.Signals, tmp_path: Path) -> None:
    """While a file plays and is recorded: the process ends soon, and the recording is saved."""
    code = (
        "from pathlib import Path; from demo.settings import Settings; from demo.window.app import run; import sys; "
        f"sys.exit(run(Settings(Path({str(BUNDLE)!r})), [Path({str(SAMPLES / 'human-3.flac')!r})], None, "
        f"Path({str(tmp_path)!r})))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(which)
        _, stderr = process.communicate(timeout=8)
    finally:
        process.kill()
    assert process.returncode == 0, stderr.decode()
    saved = sorted(path.suffix for path in tmp_path.iterdir())
    assert saved == [".json", ".srt", ".txt", ".wav"]
