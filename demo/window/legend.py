"""What the shades behind words mean."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from demo.window.lines import LEVELS
from demo.window.theme import TINTS
from demo.window.widgets import Painted

_CHIP = 20


class Legend(Painted):
    """Chips from sure to unsure."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Confidence: shaded words are less sure", 0.86, parent)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        bounds = [f"{bound:.0%}" for bound in LEVELS]
        self.setToolTip(f"Confidence of a word: above {bounds[0]}, above {bounds[1]}, above {bounds[2]}, below")

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        words = metrics.horizontalAdvance("sure") + metrics.horizontalAdvance("unsure")
        return QSize(words + 16 + _CHIP * len(TINTS), metrics.height() + 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        metrics = painter.fontMetrics()
        painter.setPen(QColor(self._palette.muted))
        base = (self.height() + metrics.ascent() - metrics.descent()) / 2
        painter.drawText(QPointF(0, base), "sure")
        left = metrics.horizontalAdvance("sure") + 8.0
        painter.drawText(QPointF(left + _CHIP * len(TINTS) + 8, base), "unsure")
        for level in range(len(TINTS)):
            painter.setBrush(QColor(self._palette.tint(level)))
            painter.setPen(QPen(QColor(self._palette.border), 1))
            painter.drawRect(QRectF(left + level * _CHIP + 0.5, self.height() / 2 - 5.5, _CHIP - 1, 11))
        painter.end()
