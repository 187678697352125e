"""``u2edge demo`` with a window."""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from demo.session import Session
from demo.settings import Settings
from demo.window.icons import application_icon
from demo.window.main_window import MainWindow
from demo.window.remembered import Remembered, config_file
from demo.window.theme import Theme
from edge.system.assets import sample_files

NO_MICROPHONE = "none"


def run(
    settings: Settings,
    files: list[Path],
    microphone: str | None,
    record: Path | None = None,
    given: Collection[str] | None = None,
    fresh: bool = False,
) -> int:
    """Show the window until it is closed or Ctrl-C.

    Args:
        settings: what to start with.
        files: played one after another at their own pace; when empty, the microphone is listened to.
        microphone: name of the device; None: the system's default; "none": the bundled recordings are played.
        record: folder for audio and transcript of everything heard.
        given: fields of ``settings`` that the user asked for; the others may come from the last time. None: nothing
            is remembered.
        fresh: forget what is remembered first.

    Returns:
        The exit code.
    """
    application = make_application()
    remembered = Remembered(config_file() if given is not None else None)
    if fresh:
        remembered.clear()
    settings = remembered.begin(settings, given or ())
    session = Session(settings)
    window = MainWindow(session, Theme(application, remembered.look), settings, remembered)
    # The window's timer lets Python see signals twelve times a second.
    former = {which: signal.signal(which, lambda *_: window.close()) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        session.start()
        if record is not None:
            window.record_to(record)
        if files or microphone == NO_MICROPHONE:
            window.play(files or sample_files())
        elif microphone is None and remembered.microphone is not None:
            window.listen_again(remembered.microphone)
        else:
            window.listen(microphone)
        window.show()
        return application.exec()
    finally:
        window.hide()
        session.close()
        for which, handler in former.items():
            signal.signal(which, handler)


def make_application() -> QApplication:
    """The one of this process."""
    found = QApplication.instance()
    if isinstance(found, QApplication):
        return found
    # Fractions of HiDPI screens are used as they are: rounding would make everything too large or too small.
    QGuiApplication.setHighDpiScaleFactorRoundingPolicy(Qt.HighDpiScaleFactorRoundingPolicy.PassThrough)
    application = QApplication(sys.argv[:1])
    application.setApplicationName("u2edge")
    application.setDesktopFileName("u2edge")
    application.setWindowIcon(application_icon())
    return application
