"""Speed and load in numbers."""

from __future__ import annotations

from PySide6.QtGui import QFont, QFontMetrics
from PySide6.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from demo.events import Meters
from demo.window.theme import scaled_font
from demo.window.widgets import caption, set_alarm, set_text

_NAMES = (
    ("p50", "Chunk p50", "Median time to compute a chunk"),
    ("p95", "Chunk p95", "95 of 100 chunks are computed at least this fast"),
    ("latency", "Latency", "From the last sound a partial text covers to the text on screen"),
    ("rtf", "RTF", "Real-time factor of the last seconds: time to compute / length of audio; above 1 it falls behind"),
    ("lag", "Behind", "Audio captured and not yet decoded"),
    ("cpu", "CPU", "Of this process; 100 % is one core"),
    ("memory", "Memory", "Resident, of this process"),
    ("dropped", "Dropped", "Blocks of audio that were lost; must stay 0"),
)
_COLUMNS = 4
_LATE_MS = 1000.0


class MetersView(QWidget):
    """One tile per number; those out of bounds turn red."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Meters")
        self._values: dict[str, QLabel] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(8)
        for i, (key, name, tip) in enumerate(_NAMES):
            tile = QVBoxLayout()
            tile.setSpacing(0)
            value = QLabel("–")
            value.setObjectName("value")
            value.setFont(scaled_font(value.font(), 1.08))
            value.setAccessibleName(name)
            label = caption(name)
            for part in (value, label):
                part.setToolTip(tip)
            tile.addWidget(label)
            tile.addWidget(value)
            grid.addLayout(tile, i // _COLUMNS, i % _COLUMNS)
            self._values[key] = value
        bold = QFontMetrics(scaled_font(self.font(), 1.08, QFont.Weight.DemiBold))
        self._values["memory"].setMinimumWidth(bold.horizontalAdvance("9999 MB") + 2)

    def show_meters(self, meters: Meters) -> None:
        """Write what changed."""
        texts = {
            "p50": milliseconds(meters.chunk_p50_ms),
            "p95": milliseconds(meters.chunk_p95_ms),
            "rtf": f"{meters.rtf:.2f}",
            "lag": f"{meters.lag_ms / 1000:.1f} s",
            "cpu": f"{meters.cpu_percent:.0f} %",
            "memory": f"{meters.memory_mb:.0f} MB",
            "dropped": str(meters.dropped_blocks),
        }
        for key, text in texts.items():
            set_text(self._values[key], text)
        set_alarm(self._values["rtf"], meters.rtf > 1.0)
        set_alarm(self._values["lag"], meters.lag_ms > _LATE_MS)
        set_alarm(self._values["dropped"], meters.dropped_blocks > 0)

    def show_latency(self, ms: float) -> None:
        """From sound to partial text."""
        set_text(self._values["latency"], milliseconds(ms))

    def text(self, key: str) -> str:
        """The number shown for p50, p95, latency, rtf, lag, cpu, memory or dropped."""
        return self._values[key].text()

    def alarmed(self, key: str) -> bool:
        """Whether that number is shown as out of bounds."""
        return bool(self._values[key].property("alarm"))


def milliseconds(ms: float) -> str:
    """7.3 ms, 42 ms; a dash for 0, before anything was measured."""
    if ms <= 0:
        return "–"
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
