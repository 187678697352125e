"""Fixtures of the window's tests, for ``pytest_plugins``; ``window_helpers`` has what is no fixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from window_helpers import BUNDLE  # first: it skips where Qt is missing

# isort: split
from PySide6.QtWidgets import QApplication

from demo.session import Session
from demo.settings import Settings
from demo.window.app import make_application
from demo.window.main_window import MainWindow
from demo.window.remembered import Remembered
from demo.window.theme import Look, Theme

OpenWindow = Callable[..., MainWindow]


@pytest.fixture(scope="session")
def qapp() -> QApplication:
    """pytest-qt's, as the program makes it."""
    return make_application()


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, Look.DARK)


@pytest.fixture
def open_window(qtbot: Any, theme: Theme) -> Iterator[OpenWindow]:
    """``open_window(settings, remembered=None)``: shown, with a session that loads; both end with the test."""
    opened: list[MainWindow] = []

    def make(settings: Settings, remembered: Remembered | None = None) -> MainWindow:
        session = Session(settings)
        window = MainWindow(session, theme, settings, remembered)
        qtbot.addWidget(window)
        opened.append(window)
        window.show()
        session.start()
        return window

    yield make
    for window in opened:
        window.close()
        assert window.session.close(10), "the session did not end"


@pytest.fixture
def window(qtbot: Any, open_window: OpenWindow) -> MainWindow:
    """On the reference bundle, loaded, with the int8 one found beside it."""
    made = open_window(Settings(BUNDLE))
    qtbot.waitUntil(lambda: made.ready and made.settings_bar.partner is not None, timeout=30000)
    return made
