"""Two bundles hear the same audio: their texts side by side, what differs, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from demo.events import Lane, Meters
from demo.window.differences import Comparison
from demo.window.discover import BundleChoice
from demo.window.meters_view import milliseconds
from demo.window.theme import Palette
from demo.window.transcript_view import TranscriptView
from demo.window.widgets import GAP, caption, set_text
from edge.runtime import Result


class CompareView(QWidget):
    """Lane 0 on the left, lane 1 on the right; rows are aligned by utterance, words by edit distance."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Comparison")
        self._comparison = Comparison()
        hint = "Speak, or open a recording\nBoth bundles hear the same audio; words that differ are highlighted."
        self.views = [TranscriptView(f"{side} transcript", hint, scale=1.3) for side in ("Left", "Right")]
        self.titles, self.figures = [QLabel(), QLabel()], [caption(), caption()]
        self.sizes = [caption(), caption()]
        self.summary = caption("Words that differ appear here")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(2 * GAP)
        grid.setVerticalSpacing(4)
        for lane in (0, 1):
            self.titles[lane].setObjectName("title")
            head = QVBoxLayout()
            head.setSpacing(0)
            name = QHBoxLayout()
            name.setSpacing(8)
            name.addWidget(self.titles[lane])
            name.addWidget(self.sizes[lane])
            name.addStretch(1)
            head.addLayout(name)
            head.addWidget(self.figures[lane])
            grid.addLayout(head, 0, 2 * lane)
            grid.addWidget(self.views[lane], 1, 2 * lane)
            grid.setColumnStretch(2 * lane, 1)
        self._rule = QFrame()
        self._rule.setFixedWidth(1)
        grid.addWidget(self._rule, 0, 1, 2, 1)
        grid.setRowStretch(1, 1)
        self._couple()

    def describe(self, lanes: Sequence[Lane], known: Sequence[BundleChoice | None]) -> None:
        """Who is on which side, and what is known of the bundles."""
        for lane, choice, title, size in zip(lanes, known, self.titles, self.sizes):
            set_text(title, lane.scheme if choice is None else choice.label)
            title.setToolTip(f"{lane.title}\n{lane.bundle}")
            set_text(size, "" if choice is None else f"{choice.megabytes:.1f} MB")

    def show_meters(self, meters: Meters) -> None:
        """Latency and RTF of a lane."""
        parts = [
            f"p50 {milliseconds(meters.chunk_p50_ms)}",
            f"p95 {milliseconds(meters.chunk_p95_ms)}",
            f"RTF {meters.rtf:.2f}",
        ]
        set_text(self.figures[meters.lane], "   ".join(parts))

    def heading(self, text: str) -> None:
        """Another source."""
        self._comparison.heading(text)
        self._draw()

    def take(self, lane: int, result: Result) -> None:
        """A partial or final result."""
        self._comparison.take(lane, result)
        self._draw()

    def clear(self) -> None:
        self._comparison.clear()
        self._draw()

    def count(self) -> tuple[int, int]:
        """Words, and words that differ."""
        return self._comparison.count()

    def set_palette(self, palette: Palette) -> None:
        self._rule.setStyleSheet(f"background: {palette.border};")
        for view in self.views:
            view.set_palette(palette)
        self._level(0)

    @property
    def selected_text(self) -> str:
        """Of both sides."""
        return "\n".join(view.selected_text for view in self.views if view.selected_text)

    def scroll_to_latest(self) -> None:
        for view in self.views:
            view.scroll_to_latest()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        QTimer.singleShot(0, self, lambda: self._level(0))  # after the texts have wrapped anew

    def _draw(self) -> None:
        written = [view.show_lines(lines) for view, lines in zip(self.views, self._comparison.lines())]
        first = min((index for index in written if index is not None), default=None)
        if first is None:
            return
        self._level(first)
        words, differing = self._comparison.count()
        if words:
            set_text(self.summary, f"{differing} of {words} words differ ({differing / words:.1%})")
        else:
            set_text(self.summary, "Words that differ appear here")

    def _level(self, first: int) -> None:
        """Give both sides of each row the same height."""
        left, right = self.views
        for index in range(first, max(len(left.lines), len(right.lines))):
            a, b = left.line_height(index), right.line_height(index)
            left.set_space_below(index, max(0.0, b - a))
            right.set_space_below(index, max(0.0, a - b))

    def _couple(self) -> None:
        """One scroll bar moves both."""
        bars = [view.verticalScrollBar() for view in self.views]
        for mine, other in (bars, bars[::-1]):
            mine.valueChanged.connect(other.setValue)
