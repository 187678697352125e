"""The line at the bottom: what is heard and how far it is, and what recognises it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QStatusBar

from demo.events import Opened
from demo.window.lines import clock
from demo.window.widgets import GAP, caption, set_text


class StatusLine(QStatusBar):
    """Source on the left, recognizers on the right; short messages come over the source."""

    def __init__(self) -> None:
        super().__init__()
        self._where, self._model = caption(), caption("Loading the model…")
        self.setSizeGripEnabled(False)
        self.setContentsMargins(GAP, 0, GAP, 0)
        self.addWidget(self._where)
        self.addPermanentWidget(self._model)
        for label in (self._where, self._model):
            label.setTextFormat(Qt.TextFormat.PlainText)

    @property
    def model(self) -> str:
        """What is said about the recognizers."""
        return self._model.text()

    def show_model(self, text: str) -> None:
        set_text(self._model, text)

    def show_source(self, source: Opened | None, heard_ms: float, active: bool) -> None:
        """``source``: None when there is none yet (``active``) or none at all."""
        if source is None:
            text = "Starting…" if active else "Stopped"
        else:
            length = f" / {clock(source.seconds * 1000)}" if source.seconds else ""
            text = f"{source.name}   {clock(heard_ms)}{length}"
        set_text(self._where, text)
