"""What the user should know: one line per topic, until it is no longer so or was dismissed."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from demo.events import Notice, Severity
from demo.window.icons import icon, pixmap
from demo.window.theme import LIGHT, Palette, mix
from demo.window.widgets import set_text


class Notices(QWidget):
    """Lines coloured by severity, the loudest first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Notices")
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._palette = LIGHT
        self._rows: dict[str, _Row] = {}
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.hide()

    def take(self, notice: Notice) -> None:
        """Show, replace or (empty text) take away the line of a topic."""
        row = self._rows.get(notice.topic)
        if not notice.text:
            self.dismiss(notice.topic)
            return
        if row is None:
            row = self._rows[notice.topic] = _Row()
            row.close_button.clicked.connect(partial(self.dismiss, notice.topic))
        moved = row.notice.severity is not notice.severity or self._layout.indexOf(row) < 0
        row.show_notice(notice, self._palette)
        if moved:
            order = list(Severity)
            for place, other in enumerate(sorted(self._rows.values(), key=lambda r: -order.index(r.notice.severity))):
                self._layout.removeWidget(other)
                self._layout.insertWidget(place, other)
        self.show()

    def dismiss(self, topic: str) -> None:
        """Take the line of a topic away."""
        row = self._rows.pop(topic, None)
        if row is not None:
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.setVisible(bool(self._rows))

    def close_button(self, topic: str) -> QToolButton:
        """That dismisses the line of ``topic``."""
        return self._rows[topic].close_button

    def texts(self) -> dict[str, str]:
        """topic -> text shown."""
        return {topic: row.notice.text for topic, row in self._rows.items()}

    def set_palette(self, palette: Palette) -> None:
        self._palette = palette
        for row in self._rows.values():
            row.show_notice(row.notice, palette)


class _Row(QFrame):
    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("notice")
        self.notice = Notice("", "")
        self._look: tuple[Severity, Palette] | None = None
        self._icon, self._label = QLabel(), QLabel()
        self._icon.setFixedSize(18, 18)
        self._label.setWordWrap(True)
        self._label.setTextFormat(Qt.TextFormat.PlainText)
        self._label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.close_button = QToolButton()
        self.close_button.setObjectName("flat")
        self.close_button.setToolTip("Dismiss")
        self.close_button.setAccessibleName("Dismiss this notice")
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 4, 6, 4)
        row.setSpacing(10)
        row.addWidget(self._icon)
        row.addWidget(self._label, 1)
        row.addWidget(self.close_button)

    def show_notice(self, notice: Notice, palette: Palette) -> None:
        """In an overload a notice says something new every two seconds: only what changed is made again."""
        self.notice = notice
        set_text(self._label, notice.text)
        self.setAccessibleName(f"{notice.severity.value}: {notice.text}")
        if self._look == (notice.severity, palette):
            return
        self._look = notice.severity, palette
        colour = {Severity.INFO: palette.accent, Severity.WARNING: palette.warning, Severity.ERROR: palette.error}[
            notice.severity
        ]
        paper = mix(palette.surface, colour, 0.10)
        self.setStyleSheet(
            f"QFrame#notice {{ background: {paper}; border: 1px solid {mix(palette.surface, colour, 0.4)};"
            f" border-left: 4px solid {colour}; border-radius: 7px; }}"
        )
        self._icon.setPixmap(pixmap(notice.severity.value, colour, 18))
        self.close_button.setIcon(icon("close", palette.muted, 16))
