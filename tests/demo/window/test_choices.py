"""What the window remembers between starts, and what it compares with; in files of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from window_helpers import BUNDLE, INT8, SAMPLES, SPOKEN, finals  # first: it skips where Qt is missing

from edge.runtime.engines.config import EngineConfig

# isort: split
from PySide6.QtCore import QTimer
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QFileDialog

from demo import launch
from demo.settings import Settings
from demo.window import app, discover
from demo.window.main_window import MainWindow
from demo.window.remembered import Remembered
from demo.window.theme import Look

pytest_plugins = ("window_fixtures",)
OpenWindow = Callable[..., MainWindow]


def ini(path: Path, **values: object) -> Remembered:
    """As a former start left it, or a hand that wrote into it."""
    path.write_text("[General]\n" + "".join(f"{name}={value}\n" for name, value in values.items()))
    return Remembered(path)


def test_choices_come_back(qtbot: Any, open_window: OpenWindow, tmp_path: Path) -> None:
    file = tmp_path / "u2edge" / "demo.ini"
    first = open_window(Settings(BUNDLE), kept := Remembered(file))
    kept.begin(Settings(BUNDLE))
    qtbot.waitUntil(lambda: first.ready and first.settings_bar.partner is not None, timeout=30000)
    first.actions_.chunks[320].trigger()
    first.actions_.rescoring.trigger()
    first.settings_bar.precision.choose(INT8)
    first.settings_bar.left.setCurrentIndex(first.settings_bar.left.findData(4))
    first.settings_bar.left.activated.emit(0)
    qtbot.waitUntil(lambda: first.session.settings == first.settings_bar.settings, timeout=30000)
    first.source_bar.choose_microphone("Desk")
    first.source_bar.microphones.activated.emit(1)
    first.actions_.looks[Look.LIGHT].trigger()
    first.resize(1000, 610)
    first.move(30, 40)
    first.close()

    again = Remembered(file)
    settings = again.begin(Settings(BUNDLE))
    assert settings == Settings(INT8, chunk_ms=320.0, left_chunks=4, rescoring=False)
    assert again.plain == Settings(BUNDLE)
    assert (again.microphone, again.look, again.dropped) == ("Desk", Look.LIGHT, [])
    second = open_window(settings, again)
    assert second.height() == 610  # Qt keeps the width within the screen, 800 pixels when there is none
    assert second.source_bar.microphone == "Desk" and second.settings_bar.chunk.value == 320
    qtbot.waitUntil(lambda: second.ready, timeout=30000)


def test_options_of_the_command_line_win(tmp_path: Path) -> None:
    file = tmp_path / "demo.ini"
    former = ini(file, bundle=INT8, chunk_ms=320.0, left_chunks=4, rescoring=False, engine="onnxruntime", device="CPU")
    asked = Settings(BUNDLE, chunk_ms=640.0)
    assert former.begin(asked, {"bundle", "chunk_ms", "left_chunks"}) == Settings(
        BUNDLE, None, chunk_ms=640.0, rescoring=False
    )
    former.keep(asked)  # switched in the window: rescoring only
    after = Remembered(file)
    assert after.begin(Settings(BUNDLE)) == Settings(INT8, chunk_ms=320.0, left_chunks=4)


@pytest.mark.parametrize(
    ("values", "dropped"),
    [
        ({"bundle": "/no/such/bundle"}, 1),
        ({"chunk_ms": 333.0}, 1),  # no multiple of 40 ms
        ({"chunk_ms": "nan", "left_chunks": -7, "rescoring": "perhaps"}, 3),
        ({"engine": "tensorflow", "device": "CPU"}, 1),
        ({"left_chunks": "many", "chunk_ms": ""}, 1),
        ({"bundle": "x" * 9000}, 0),
    ],
)
def test_what_cannot_be_used_is_left_out(tmp_path: Path, values: dict[str, object], dropped: int) -> None:
    former = ini(tmp_path / "demo.ini", look="plaid", **values)
    assert former.begin(Settings(BUNDLE)) == Settings(BUNDLE) and former.plain is None
    assert len(former.dropped) == dropped
    assert former.look is Look.SYSTEM and former.microphone is None and former.geometry is None


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "demo.ini").write_bytes(bytes(range(256)) * 40)
    assert Remembered(tmp_path / "demo.ini").begin(Settings(BUNDLE)) == Settings(BUNDLE)


def test_settings_that_no_longer_load_give_way(qtbot: Any, open_window: OpenWindow, tmp_path: Path) -> None:
    """Its manifest is fine, so only loading tells that the encoder is gone."""
    (tmp_path / "half").mkdir()
    shutil.copy(BUNDLE / "manifest.json", tmp_path / "half")
    former = ini(tmp_path / "demo.ini", bundle=tmp_path / "half", chunk_ms=320.0)
    settings = former.begin(Settings(BUNDLE))
    assert settings.bundle == tmp_path / "half"
    window = open_window(settings, former)
    window.play([SAMPLES / "human-3.flac"])
    qtbot.waitUntil(lambda: finals(window.stage.transcript) == [SPOKEN], timeout=30000)
    assert "do not work any more" in window.stage.notices.texts()["remembered"]
    assert window.settings_bar.settings == window.session.settings == Settings(BUNDLE)
    window.close()
    assert Remembered(tmp_path / "demo.ini").begin(Settings(BUNDLE)) == Settings(BUNDLE)


def test_microphone_of_the_last_time(
    qtbot: Any, open_window: OpenWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used if it is there, else the system's, and the window says so; it stays remembered."""
    plugged: list[str] = ["Desk"]
    heard: list[str | None] = []
    monkeypatch.setattr(discover, "microphones", lambda: list(plugged))
    window = open_window(Settings(BUNDLE), ini(tmp_path / "demo.ini", microphone="Desk"))
    monkeypatch.setattr(window.session, "listen", heard.append)
    window.listen_again("Desk")
    qtbot.waitUntil(lambda: heard == ["Desk"], timeout=5000)
    assert "remembered" not in window.stage.notices.texts() and window.source_bar.microphone == "Desk"
    window.stop()
    plugged[:] = ["Another"]
    window.listen_again("Desk")
    qtbot.waitUntil(lambda: heard == ["Desk", None], timeout=5000)
    assert "Desk" in window.stage.notices.texts()["remembered"] and window.source_bar.microphone is None
    window.close()
    assert Remembered(tmp_path / "demo.ini").microphone == "Desk"


def test_forget(qtbot: Any, open_window: OpenWindow, tmp_path: Path) -> None:
    file = tmp_path / "demo.ini"
    former = ini(file, chunk_ms=320.0, microphone="Desk", look="light")
    window = open_window(former.begin(Settings(BUNDLE)), former)
    window.actions_.forget.trigger()
    window.close()
    after = Remembered(file)
    assert after.begin(Settings(BUNDLE)) == Settings(BUNDLE)
    assert (after.microphone, after.look, after.geometry) == (None, Look.SYSTEM, None)


def test_dialogs_begin_where_the_last_one_ended(qtbot: Any, open_window: OpenWindow, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    shutil.copy(SAMPLES / "human-1.flac", tmp_path / "talks")
    window = open_window(Settings(BUNDLE), Remembered(tmp_path / "demo.ini"))

    def dialog(action: QAction) -> QFileDialog:
        qtbot.wait(50)  # the former one is gone then
        action.trigger()
        (found,) = window.findChildren(QFileDialog)
        return found

    opened = dialog(window.actions_.open)
    opened.setDirectory(str(tmp_path / "talks"))
    opened.selectFile("human-1.flac")
    opened.accept()
    kept = Remembered(tmp_path / "demo.ini")
    assert kept.folder("recordings") == tmp_path / "talks" and kept.folder("transcripts") is None
    for purpose, action in (("transcripts", window.actions_.save), ("recordings", window.actions_.open)):
        window.remembered.visited(purpose, tmp_path / purpose)
        (tmp_path / purpose).mkdir()
        made = dialog(action)
        assert Path(made.directory().absolutePath()) == tmp_path / purpose
        made.reject()
    window.remembered.visited("recording", tmp_path / "talks")
    made = dialog(window.actions_.bundle)
    assert Path(made.directory().absolutePath()) == tmp_path / "recordings", "each purpose has its own; Qt's last one"
    made.reject()


@pytest.mark.parametrize("given", [None, {"rescoring"}])
def test_the_program_remembers_only_when_it_is_the_program(
    qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: set[str] | None
) -> None:
    """Whoever calls ``run`` without saying what was given, a test or another program, finds and leaves nothing."""
    file = tmp_path / "demo.ini"
    ini(file, chunk_ms=320.0, rescoring=False)
    before = file.read_bytes()
    monkeypatch.setattr(app, "config_file", lambda: file)
    seen: list[Settings] = []

    def look() -> None:
        for window in QApplication.topLevelWidgets():
            if isinstance(window, MainWindow) and window.isVisible() and window.ready:
                seen.append(window.session.settings)
                window.close()
                timer.stop()

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(50)
    assert app.run(Settings(BUNDLE), [SAMPLES / "human-1.flac"], None, None, given) == 0
    assert seen == [Settings(BUNDLE, chunk_ms=320.0 if given else None)]
    assert (file.read_bytes() == before) == (given is None)


def test_default_of_what_was_given() -> None:
    """Who calls ``launch.run`` without ``given`` gave what differs from the defaults."""
    settings = Settings(Path("models/reference-bundle"), chunk_ms=320.0, engine=EngineConfig("openvino"))
    assert launch._differing(settings) == {"chunk_ms", "engine"}
    assert launch._differing(Settings(INT8)) == {"bundle"}


def test_partner_to_compare_with(qtbot: Any, window: MainWindow, tmp_path: Path) -> None:
    def entries() -> dict[str, QAction]:
        found = window.actions_.partner_menu.actions()
        return {action.text().replace("&", ""): action for action in found if action.text()}

    assert set(entries()) == {"int8  (reference-int8)", "Another folder…", "Off"} and not entries()["Off"].isEnabled()
    entries()["int8  (reference-int8)"].trigger()
    qtbot.waitUntil(lambda: window.stage.comparing, timeout=30000)
    assert window.actions_.compare.isChecked() and window.session.settings.compare == INT8
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(INT8, target_is_directory=True)
    window.settings_bar.set_partner(elsewhere)
    qtbot.waitUntil(lambda: window.session.settings.compare == elsewhere, timeout=30000)
    window.play([SAMPLES / "human-3.flac"])
    qtbot.waitUntil(lambda: all(finals(view) for view in window.stage.compare.views), timeout=30000)
    window.actions_.copy.trigger()
    titles = [title.text() for title in window.stage.compare.titles]
    texts = [window.session.transcript(lane).text for lane in (0, 1)]
    assert QApplication.clipboard().text() == f"{titles[0]}\n{texts[0]}\n\n{titles[1]}\n{texts[1]}"
    assert texts[0] == SPOKEN
    entries()["Off"].trigger()
    qtbot.waitUntil(lambda: not window.stage.comparing, timeout=30000)
    window.actions_.compare.trigger()
    qtbot.waitUntil(lambda: window.stage.comparing, timeout=30000)
    assert window.session.settings.compare == elsewhere, "the last partner is kept"
    window.settings_bar.set_partner(tmp_path)
    qtbot.waitUntil(lambda: "settings" in window.stage.notices.texts(), timeout=10000)
    qtbot.waitUntil(lambda: window.settings_bar.settings.compare == elsewhere, timeout=10000)
