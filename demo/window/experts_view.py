"""Who works: the share of frames that each expert of each layer got in the last second."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QImage, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from demo.window.theme import LIGHT, Palette, mix
from demo.window.widgets import Painted

_GAP = 8
_STEPS = 64


class ExpertsView(Painted):
    """A heat map, layers downwards and experts to the right, with the entropy of every layer beside it.

    Colours go from nothing to the largest share an expert can have, 1 / active experts; entropy is 1 when all
    experts of a layer work alike.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Experts", 0.8, parent)
        self.setAccessibleDescription("Share of frames per layer and expert in the last second, entropy per layer")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._names: tuple[str, ...] = ()
        self._labels: list[str] = []
        self._active = 1
        self._share = np.zeros((0, 0), np.float32)
        self._entropy = np.zeros(0, np.float32)
        self._table = [LIGHT.raised] * _STEPS
        self._frame: QPixmap | None = None  # names and scales, drawn once
        self.set_palette(LIGHT)

    def sizeHint(self) -> QSize:
        return QSize(270, 240)

    def minimumSizeHint(self) -> QSize:
        return QSize(220, 100)

    @property
    def share(self) -> NDArray[np.float32]:
        """(layers, experts) as shown."""
        return self._share

    def describe(self, layers: Sequence[str], experts: int, active: int) -> None:
        """The mixture-of-experts layers of a model by module path."""
        self._names, self._active = tuple(layers), max(1, active)
        self._labels = short_names(layers)
        self._share = np.zeros((len(layers), experts), np.float32)
        self._entropy = np.zeros(len(layers), np.float32)
        self._frame = None
        self.update()

    def load(self, share: NDArray[np.float32], entropy: NDArray[np.float32]) -> None:
        """(layers, experts) rows that sum to 1, and (layers,) in 0..1."""
        if share.shape != self._share.shape or entropy.shape != self._entropy.shape:
            return  # of a model that is being replaced
        if not np.array_equal(share, self._share):
            self._share, self._entropy = share, entropy
            self.update()

    def set_palette(self, palette: Palette) -> None:
        super().set_palette(palette)
        ends = (palette.raised, palette.accent, "#e6fbff" if palette.is_dark else "#0a1f4d")
        half = _STEPS // 2
        self._table = [mix(ends[0], ends[1], i / half) for i in range(half)]
        self._table += [mix(ends[1], ends[2], (i + 1) / half * 0.7) for i in range(_STEPS - half)]
        self._frame = None

    def colour(self, share: float) -> str:
        """Of a cell."""
        return self._table[min(_STEPS - 1, max(0, int(share * self._active * _STEPS)))]

    def cell(self, layer: int, expert: int) -> QRectF:
        """Where a cell is drawn."""
        grid = self._grid()
        layers, experts = self._share.shape
        w, h = grid.width() / experts, grid.height() / layers
        return QRectF(grid.left() + expert * w, grid.top() + layer * h, w, h)

    def tip(self, where: QPoint) -> str:
        """What the pointer shows there; empty outside the map."""
        grid, (layers, experts) = self._grid(), self._share.shape
        if not layers or not experts or not grid.top() <= where.y() < grid.bottom():
            return ""
        layer = int((where.y() - grid.top()) / grid.height() * layers)
        if grid.left() <= where.x() < grid.right():
            expert = int((where.x() - grid.left()) / grid.width() * experts)
            share = float(self._share[layer, expert])
            return f"{self._names[layer]}\nexpert {expert}: {share:.0%} of the last second (at most 1/{self._active})"
        return f"{self._names[layer]}\nentropy {float(self._entropy[layer]):.2f} (1: all experts alike)"

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            text = self.tip(event.pos())
            if text:
                QToolTip.showText(event.globalPos(), text, self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def resizeEvent(self, event: object) -> None:
        self._frame = None

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        layers, experts = self._share.shape
        if not layers or not experts:
            painter.setPen(QColor(self._palette.muted))
            text = "This model has no mixture-of-experts layers." if self._names else "Waiting for a model…"
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), text)
            painter.end()
            return
        ratio = self.devicePixelRatioF()
        if self._frame is None or self._frame.devicePixelRatio() != ratio:
            self._frame = self._draw_frame(ratio)
        painter.drawPixmap(0, 0, self._frame)
        gap = 1.0 if self.cell(0, 0).width() > 6 and self.cell(0, 0).height() > 6 else 0.0
        for layer in range(layers):
            for expert in range(experts):
                share = float(self._share[layer, expert])
                painter.fillRect(self.cell(layer, expert).adjusted(0, 0, -gap, -gap), QColor(self.colour(share)))
            row = self.cell(layer, experts - 1)
            track = QRectF(row.right() + _GAP, row.top(), self._entropy_width, row.height() - gap)
            full = min(1.0, max(0.0, float(self._entropy[layer])))
            bar = track.adjusted(0, track.height() * 0.25, 0, -track.height() * 0.25)
            painter.fillRect(bar, QColor(self._palette.raised))
            painter.fillRect(QRectF(bar.left(), bar.top(), bar.width() * full, bar.height()), QColor(self._palette.ok))
        painter.end()

    def _grid(self) -> QRectF:
        line = self.fontMetrics().height()
        left = max((self.fontMetrics().horizontalAdvance(label) for label in self._labels), default=0) + _GAP
        return QRectF(left, line + 2, self.width() - left - _GAP - self._entropy_width, self.height() - 2 * line - 10)

    @property
    def _entropy_width(self) -> float:
        return float(self.fontMetrics().horizontalAdvance("entropy") + 1)

    def _draw_frame(self, ratio: float) -> QPixmap:
        """Names of layers and experts, and the colour scale: what does not change while speaking."""
        frame = QPixmap(round(self.width() * ratio), round(self.height() * ratio))
        frame.setDevicePixelRatio(ratio)
        frame.fill(Qt.GlobalColor.transparent)
        painter = QPainter(frame)
        painter.setFont(self.font())
        painter.setPen(QColor(self._palette.muted))
        metrics, grid = painter.fontMetrics(), self._grid()
        layers, experts = self._share.shape
        every = max(1, int(np.ceil(metrics.height() * layers / max(1.0, grid.height()))))
        for layer in range(0, layers, every):
            cell = self.cell(layer, 0)
            box = QRectF(0, cell.center().y() - metrics.height() / 2, grid.left() - _GAP, metrics.height())
            painter.drawText(box, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), self._labels[layer])
        wide = metrics.horizontalAdvance("00") + 4
        every = max(1, int(np.ceil(wide * experts / max(1.0, grid.width()))))
        for expert in range(0, experts, every):
            cell = self.cell(0, expert)
            box = QRectF(cell.center().x() - wide / 2, 0, wide, metrics.height())
            painter.drawText(box, int(Qt.AlignmentFlag.AlignHCenter), str(expert))
        painter.drawText(QPointF(grid.right() + _GAP, metrics.ascent()), "entropy")
        self._draw_scale(painter, grid)
        painter.end()
        return frame

    def _draw_scale(self, painter: QPainter, grid: QRectF) -> None:
        metrics = painter.fontMetrics()
        base = self.height() - metrics.descent() - 1
        low, high = "0", f"{1 / self._active:.0%} of frames"
        start = grid.left() + metrics.horizontalAdvance(low) + 5
        strip = QImage(_STEPS, 1, QImage.Format.Format_RGB32)
        for i, colour in enumerate(self._table):
            strip.setPixelColor(i, 0, QColor(colour))
        bar = QRectF(start, base - metrics.ascent() + 3, 64, metrics.ascent() - 3)
        painter.drawText(QPointF(grid.left(), base), low)
        painter.drawImage(bar, strip)
        painter.drawText(QPointF(bar.right() + 5, base), high)


def short_names(layers: Sequence[str]) -> list[str]:
    """Labels for module paths: "1 macaron" and "1 ffn" for the two of the first block."""
    labels = []
    for path in layers:
        number = re.search(r"\.(\d+)\.", path)
        kind = "macaron" if "macaron" in path else "ffn"
        labels.append(f"{int(number.group(1)) + 1} {kind}" if number else path.rsplit(".", 1)[-1])
    return labels
