"""How loud it is: average and peak of the last blocks, the highest peak held, and a mark for clipping."""

from __future__ import annotations

import time

from PySide6.QtCore import QPointF, QRectF, QSize
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from demo.window.widgets import Painted

FLOOR_DB = -60.0
CLIP_DB = -0.1  # dBFS
_HOLD_S = 1.5
_CLIP_HOLD_S = 3.0
_FALL_DB_S = 30.0
_TICKS = (0, -12, -24, -36, -48, -60)


class LevelMeter(Painted):
    """A vertical bar from -60 to 0 dBFS."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Level", 0.78, parent)
        self.setToolTip("Level in dBFS: bar average, line held peak; the mark on top is clipping")
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Expanding)
        self._rms = self._peak = self._held = FLOOR_DB
        self._held_at = self._clipped_at = self._heard_at = -1e9

    def sizeHint(self) -> QSize:
        return QSize(20 + self.fontMetrics().horizontalAdvance("-60") + 8, 90)

    @property
    def clipping(self) -> bool:
        """Whether a sample near full scale came in the last seconds."""
        return time.monotonic() - self._clipped_at < _CLIP_HOLD_S

    def hear(self, rms_db: float, peak_db: float) -> None:
        """Levels of the newest audio, dBFS."""
        now = time.monotonic()
        fall = _FALL_DB_S * min(1.0, now - self._heard_at)
        self._heard_at = now
        self._rms = max(rms_db, self._rms - fall, FLOOR_DB)
        self._peak = max(peak_db, self._peak - fall, FLOOR_DB)
        if peak_db >= self._held or now - self._held_at > _HOLD_S:
            self._held, self._held_at = max(peak_db, FLOOR_DB), now
        if peak_db >= CLIP_DB:
            self._clipped_at = now
        self.update()

    def rest(self) -> None:
        """No audio any more."""
        if self._rms > FLOOR_DB or self._held > FLOOR_DB:
            self._rms = self._peak = self._held = FLOOR_DB
            self._clipped_at = -1e9
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        metrics = painter.fontMetrics()
        top, height = 10.0, self.height() - 10.0 - metrics.height() / 2
        left = self.width() - 16.0
        bar = QRectF(left, top, 14, height)
        painter.fillRect(bar, QColor(self._palette.raised))

        def y(db: float) -> float:
            return top + height * min(1.0, max(0.0, db / FLOOR_DB))

        for low, high, colour in (
            (FLOOR_DB, -12.0, self._palette.ok),
            (-12.0, -3.0, self._palette.warning),
            (-3.0, 0.0, self._palette.error),
        ):
            reach = min(self._rms, high)
            if reach > low:
                painter.fillRect(QRectF(left, y(reach), 14, y(low) - y(reach)), QColor(colour))
        if self._held > FLOOR_DB:
            painter.fillRect(QRectF(left, y(self._held) - 1, 14, 2), QColor(self._palette.text))
        painter.fillRect(QRectF(left, 2, 14, 5), QColor(self._palette.error if self.clipping else self._palette.raised))
        painter.setPen(QColor(self._palette.muted))
        step = metrics.height() + 2
        last = -1000.0
        for db in _TICKS:
            if y(db) - last >= step or db == FLOOR_DB:
                if db == FLOOR_DB and y(db) - last < step:
                    continue
                last = y(db)
                label = f"{db}"
                width = metrics.horizontalAdvance(label)
                painter.drawText(QPointF(left - 6 - width, y(db) + metrics.ascent() / 2 - 1), label)
        painter.end()

    def minimumSizeHint(self) -> QSize:
        return QSize(self.sizeHint().width(), 40)
