"""The wave and the log-mel features that the recognizer sees, scrolling to the left."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from demo.window.theme import LIGHT, Palette, scaled_font
from demo.window.waveform import Waveform, span

MELS = 80
RATE = 16000  # Hz, of the audio the columns are made from
SECONDS = 8
COLUMNS = SECONDS * 100
LOWEST, HIGHEST = 3.0, 20.0  # natural log of mel energy of 16-bit samples: a quiet room to a loud voice
_WAVE, _AXIS = 34, 34  # pixels: height of the wave, width of the axis
_KILOHERTZ = (0.5, 1, 2, 4)

pg.setConfigOptions(antialias=False, useOpenGL=False, imageAxisOrder="row-major")


class Spectrogram(QWidget):
    """The last seconds of the wave, and below it of (frames, 80) log-mel columns of 10 ms each."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Wave and spectrogram")
        self.setAccessibleDescription("Wave and log-mel energies of the last seconds, as the recognizer sees them")
        # Twice as wide as shown: a column is written once, and the picture is a window that moves over it.
        self._ring = np.zeros((MELS, 2 * COLUMNS), np.uint8)
        self._end = COLUMNS
        self._plot = pg.GraphicsLayoutWidget()
        self._plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._plot.setFrameShape(self._plot.Shape.NoFrame)
        self._plot.ci.layout.setContentsMargins(0, 0, 0, 0)
        self._plot.ci.layout.setSpacing(0)
        above, item = self._plot.addPlot(0, 0), self._plot.addPlot(1, 0)
        for part in (above, item):
            part.hideButtons()
            part.setMenuEnabled(False)
            part.setMouseEnabled(False, False)
            part.setContentsMargins(0, 4, 14, 0)
            part.getAxis("left").setWidth(_AXIS)
        above.hideAxis("bottom")
        above.setMaximumHeight(_WAVE)
        above.getAxis("left").setStyle(showValues=False, tickLength=0)
        above.getAxis("left").setPen(pg.mkPen(None))
        above.getAxis("left").setTicks([])
        self.wave = Waveform(above, SECONDS)
        self._item = item
        self._image = pg.ImageItem(self._picture, autoLevels=False, levels=(0, 255))
        self._image.setRect(-SECONDS, 0, SECONDS, MELS)
        item.addItem(self._image)
        item.setRange(xRange=(-SECONDS, 0), yRange=(0, MELS), padding=0, disableAutoRange=True)
        self._bottom, self._left = item.getAxis("bottom"), item.getAxis("left")
        seconds = [(-s, f"−{s} s" if s else "now") for s in range(0, SECONDS, 2)]
        self._bottom.setTicks([seconds])
        self._bottom.setHeight(20)
        for axis in (self._bottom, self._left):
            axis.setStyle(tickFont=scaled_font(self.font(), 0.78), tickLength=-3, hideOverlappingLabels=False)
        self._plot.setMinimumHeight(40 + _WAVE)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._plot)
        self.set_palette(LIGHT)

    @property
    def _picture(self) -> NDArray[np.uint8]:
        return self._ring[:, self._end - COLUMNS : self._end]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """What is shown, (80, columns): 0 is silence, the last column is now."""
        return self._picture.copy()

    @property
    def span(self) -> tuple[float, float]:
        """Pixels from the left, where the picture begins and ends."""
        return span(self._item)

    def hear(self, columns: NDArray[np.float32], wave: NDArray[np.float32]) -> None:
        """Append (frames, 80) log-mel and (points, 2) lowest and highest sample per 10 ms."""
        self.wave.hear(wave)
        columns = columns[-COLUMNS:]
        if not len(columns) or columns.shape[1] != MELS:
            return
        if self._end + len(columns) > self._ring.shape[1]:
            kept = COLUMNS - len(columns)
            self._ring[:, :kept] = self._ring[:, self._end - kept : self._end].copy()
            self._end = kept
        scaled = np.clip((columns.T - LOWEST) * (255 / (HIGHEST - LOWEST)), 0, 255)
        self._ring[:, self._end : self._end + len(columns)] = np.nan_to_num(scaled)
        self._end += len(columns)
        self._image.setImage(self._picture, autoLevels=False, levels=(0, 255))

    def clear(self) -> None:
        """Silence."""
        self.wave.clear()
        self._ring[:] = 0
        self._image.setImage(self._picture, autoLevels=False, levels=(0, 255))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        low, high = _mel(20.0), _mel(RATE / 2)  # Kaldi's channels
        room = (self.height() - 28 - _WAVE) / MELS  # pixels per channel
        ticks: list[tuple[float, str]] = []
        for kilohertz in _KILOHERTZ:
            y = (_mel(kilohertz * 1000) - low) / (high - low) * MELS
            if not ticks or (y - ticks[-1][0]) * room >= self.fontMetrics().height() * 0.8:
                ticks.append((y, f"{kilohertz:g}k" if kilohertz >= 1 else f"{kilohertz * 1000:g}"))
        self._left.setTicks([ticks])
        self.wave.draw()

    def set_palette(self, palette: Palette) -> None:
        self._plot.setBackground(palette.surface)
        self.wave.set_palette(palette)
        for axis in (self._bottom, self._left):
            axis.setPen(QColor(palette.border))
            axis.setTextPen(QColor(palette.muted))
        stops = (palette.surface, "#3b2a6e", "#a5327d", "#f0704a", "#fde08a")
        if not palette.is_dark:
            stops = (palette.surface, "#cfe0f5", "#5c9be0", "#1f4fa8", "#101b44")
        colours = [(c.red(), c.green(), c.blue()) for c in map(QColor, stops)]
        self._image.setColorMap(pg.ColorMap(np.linspace(0, 1, len(stops)), colours))


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
