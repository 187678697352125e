"""The wave above the spectrogram: lowest and highest sample of each pixel column, clipping in red."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtGui import QColor

from demo.window.level_meter import CLIP_DB
from demo.window.theme import LIGHT, Palette

FULL = 10.0 ** (CLIP_DB / 20)  # amplitude from which on a sample counts as clipped, as for the level meter


def span(plot: pg.PlotItem) -> tuple[float, float]:
    """Left and right end of what a plot draws, in pixels of its view."""
    area = plot.getViewBox().sceneBoundingRect()
    return area.left(), area.right()


class Waveform:
    """Draws the newest (points, 2) lowest and highest sample per 10 ms into a plot whose x axis is in seconds, 0 now.

    Heights are the square root of amplitudes, so that quiet speech is seen beside full scale.
    """

    def __init__(self, plot: pg.PlotItem, seconds: float) -> None:
        self._plot, self._seconds = plot, seconds
        # Points lie as pairs, low then high: one straight line per pixel column.
        self._wave = pg.PlotCurveItem(connect="pairs")
        self._clipped = pg.PlotCurveItem(connect="pairs")
        self._points = np.zeros((round(seconds * 100), 2), np.float32)
        for item in (self._wave, self._clipped):
            plot.addItem(item)
        plot.setRange(xRange=(-seconds, 0), yRange=(-1.02, 1.02), padding=0, disableAutoRange=True)
        self.set_palette(LIGHT)

    def hear(self, points: NDArray[np.float32]) -> None:
        """Append (points, 2)."""
        new = np.nan_to_num(points[-len(self._points) :])
        if new.ndim != 2 or not len(new):
            return
        self._points = np.concatenate([self._points[len(new) :], new])
        self.draw()

    def clear(self) -> None:
        """Silence."""
        self._points[:] = 0
        self.draw()

    @property
    def span(self) -> tuple[float, float]:
        """Pixels from the left of the view, where its oldest and newest columns end."""
        return span(self._plot)

    def columns(self, pixels: int) -> NDArray[np.float32]:
        """(pixels, 2): the lowest and highest sample of each column, oldest first."""
        first = np.arange(pixels) * len(self._points) // pixels
        low = np.minimum.reduceat(self._points[:, 0], first)
        return np.stack([low, np.maximum.reduceat(self._points[:, 1], first)], axis=1)

    def draw(self) -> None:
        """Again, for the width the plot has now."""
        pixels = max(1, round(self._plot.getViewBox().width()))
        columns = self.columns(pixels)
        x = ((np.arange(pixels) + 0.5) / pixels - 1) * self._seconds
        y = np.sign(columns) * np.sqrt(np.abs(columns))
        y[:, 1] = np.maximum(y[:, 1], y[:, 0] + 0.02)  # silence is a line, too
        clipped = np.abs(columns).max(axis=1) >= FULL
        self._wave.setData(np.repeat(x, 2), y.ravel())
        self._clipped.setData(np.repeat(x[clipped], 2), y[clipped].ravel())

    def set_palette(self, palette: Palette) -> None:
        self._wave.setPen(QColor(palette.accent))
        self._clipped.setPen(QColor(palette.error))
