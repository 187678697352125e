"""Version, licence, shortcuts."""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence

import PySide6
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QVBoxLayout,
    QWidget,
)

from demo.window.icons import application_icon
from demo.window.widgets import caption
from edge.system.versions import own_version


def about(parent: QWidget) -> QDialog:
    """What this is, who may use it."""
    label = QLabel(
        f"<h2 style='margin:0'>u2edge</h2><p>Version {html.escape(own_version())}</p>"
        "<p>Streaming speech recognition with U2++ mixture-of-experts models on the edge. "
        "Audio never leaves this machine.</p>"
        "<p>Licence: Apache 2.0</p>"
        f"<p style='font-size:small'>Python {platform.python_version()}, Qt for Python {PySide6.__version__} "
        "(LGPL 3), pyqtgraph (MIT)</p>"
    )
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setWordWrap(True)
    label.setMinimumWidth(360)
    logo = QLabel()
    logo.setPixmap(application_icon().pixmap(64, 64))
    row = QHBoxLayout()
    row.setSpacing(20)
    row.addWidget(logo, 0, Qt.AlignmentFlag.AlignTop)
    row.addWidget(label, 1)
    return _dialog(parent, "About u2edge", row)


def shortcuts(parent: QWidget, keys: Sequence[tuple[str, str]]) -> QDialog:
    """(keys, what they do) as a table."""
    table = QGridLayout()
    table.setHorizontalSpacing(24)
    table.setVerticalSpacing(6)
    for row, (key, text) in enumerate(keys):
        name = QLabel(key)
        name.setObjectName("title")
        table.addWidget(name, row, 0)
        table.addWidget(QLabel(text), row, 1)
    more = "Tab moves between controls, arrow keys within a group.\nAlt and an underlined letter reach a control."
    table.addWidget(caption(more), len(keys), 0, 1, 2)
    return _dialog(parent, "Keyboard shortcuts", table)


def _dialog(parent: QWidget, title: str, content: QLayout) -> QDialog:
    dialog = QDialog(parent)
    dialog.setWindowTitle(title)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.reject)
    outer = QVBoxLayout(dialog)
    outer.setContentsMargins(20, 20, 20, 16)
    outer.setSpacing(14)
    outer.addLayout(content)
    outer.addWidget(buttons)
    return dialog
