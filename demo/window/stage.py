"""What is seen while somebody speaks: transcript, comparison, spectrogram, level, meters, experts, notices."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QStackedWidget, QVBoxLayout, QWidget

from demo.events import Event, ExpertLoad, Final, Heard, Lane, Meters, Notice, Partial
from demo.window.compare import CompareView
from demo.window.discover import BundleChoice
from demo.window.experts_view import ExpertsView
from demo.window.legend import Legend
from demo.window.level_meter import LevelMeter
from demo.window.lines import Feed, Line
from demo.window.meters_view import MetersView
from demo.window.notices import Notices
from demo.window.spectrogram import Spectrogram
from demo.window.theme import Palette
from demo.window.transcript_view import TranscriptView
from demo.window.widgets import GAP, Card, caption, set_text

SIDE = 312  # pixels; meters and experts
HINT = "Speak, or open a recording\nCtrl+L listens, Ctrl+O opens a file; the File menu has bundled recordings to try."


class Stage(QWidget):
    """All views of a session; gives each event to the ones it concerns."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._feed = Feed()
        self._lanes: tuple[Lane, ...] = ()
        self.notices = Notices()
        self.transcript, self.compare = TranscriptView("Transcript", HINT), CompareView()
        self.spectrogram, self.level = Spectrogram(), LevelMeter()
        self.meters, self.experts = MetersView(), ExpertsView()
        self._legend, self._stack = Legend(), QStackedWidget()
        self.earlier = caption()
        self.earlier.setToolTip("No longer on screen; Copy and Save have all of them")
        self._build()

    @property
    def comparing(self) -> bool:
        """Whether two bundles hear the audio."""
        return len(self._lanes) > 1

    @property
    def lines(self) -> Sequence[Line]:
        """Of the transcript on screen; in compare mode of the left one."""
        return self.compare.views[0].lines if self.comparing else self.transcript.lines

    @property
    def selected_text(self) -> str:
        """In the transcripts on screen; empty when nothing is selected."""
        return self.compare.selected_text if self.comparing else self.transcript.selected_text

    def titled(self, texts: Sequence[str]) -> str:
        """The text of each lane, under its title where there are two."""
        if not self.comparing:
            return texts[0]
        return "\n\n".join(f"{title.text()}\n{text}" for title, text in zip(self.compare.titles, texts))

    def take(self, event: Event) -> None:
        """Draw an event; those that concern no view are ignored."""
        match event:
            case Heard():
                self.spectrogram.hear(event.columns, event.wave)
                self.level.hear(event.rms_db, event.peak_db)
            case Partial():
                if event.lane == 0:
                    if event.result.text:
                        self.meters.show_latency(event.lag_ms)
                    self._feed.speak(event.result)
                    self._draw()
                if self.comparing:
                    self.compare.take(event.lane, event.result)
            case Final():
                if event.lane == 0:
                    self._feed.finish(event.result)
                    self._draw()
                if self.comparing:
                    self.compare.take(event.lane, event.result)
            case ExpertLoad(lane=0):
                self.experts.load(event.share, event.entropy)
            case Meters():
                if event.lane == 0:
                    self.meters.show_meters(event)
                if self.comparing:
                    self.compare.show_meters(event)
            case Notice():
                self.notices.take(event)

    def heading(self, name: str) -> None:
        """Audio comes from another source; what was said before stays."""
        self._feed.heading(name)
        self._draw()
        self.compare.heading(name)

    def describe(self, lanes: tuple[Lane, ...], known: Sequence[BundleChoice | None], source: str) -> None:
        """Who recognises, one lane or two; ``source`` is what they hear now, empty for nothing."""
        before, self._lanes = self._lanes, lanes
        main = lanes[0]
        if not before or (before[0].moe_layers, before[0].experts) != (main.moe_layers, main.experts):
            self.experts.describe(main.moe_layers, main.experts, main.active)
        if self.comparing:
            self.compare.describe(lanes, known)
            if [lane.bundle for lane in before] != [lane.bundle for lane in lanes]:
                self.compare.clear()
                if source:
                    self.compare.heading(source)
        self._stack.setCurrentWidget(self.compare if self.comparing else self.transcript)
        self._legend.setVisible(not self.comparing)
        self.compare.summary.setVisible(self.comparing)
        self._draw()

    def clear(self) -> None:
        """An empty screen."""
        self._feed.clear()
        self._draw()
        self.compare.clear()
        self.spectrogram.clear()

    def scroll_to_latest(self) -> None:
        """In every transcript."""
        self.transcript.scroll_to_latest()
        self.compare.scroll_to_latest()

    def set_palette(self, palette: Palette) -> None:
        """Draw everything in other colours."""
        for view in (self.transcript, self.compare, self.spectrogram, self.level, self.experts, self.notices):
            view.set_palette(palette)
        self._legend.set_palette(palette)

    def _draw(self) -> None:
        self.transcript.show_lines(self._feed.shown)
        gone = self._feed.earlier
        set_text(self.earlier, f"Earlier utterances: {gone}")
        self.earlier.setVisible(gone > 0 and not self.comparing)

    def _build(self) -> None:
        text, sound = Card("Transcript"), Card("What the model hears")
        speed, work = Card("Speed"), Card("Experts at work, last second")
        text.head.addWidget(self.earlier)
        text.head.addSpacing(8)
        text.head.addWidget(self._legend)
        text.head.addWidget(self.compare.summary)
        self.compare.summary.hide()
        self._stack.addWidget(self.transcript)
        self._stack.addWidget(self.compare)
        text.body.addWidget(self._stack)
        text.setMinimumHeight(110)
        strip = QHBoxLayout()
        strip.setSpacing(10)
        strip.addWidget(self.spectrogram, 1)
        strip.addWidget(self.level)
        sound.body.addLayout(strip)
        sound.setMinimumHeight(146)
        sound.setMaximumHeight(224)
        sound.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        speed.body.addWidget(self.meters)
        work.body.addWidget(self.experts)
        for card in (speed, work):
            card.setFixedWidth(max(SIDE, speed.sizeHint().width()))
        left, right, body, outer = QVBoxLayout(), QVBoxLayout(), QHBoxLayout(), QVBoxLayout(self)
        for layout in (left, right, body, outer):
            layout.setSpacing(GAP - 2)
        outer.setContentsMargins(0, 0, 0, 0)
        left.addWidget(text, 3)
        left.addWidget(sound, 2)
        right.addWidget(speed)
        right.addWidget(work, 1)
        body.addLayout(left, 1)
        body.addLayout(right)
        outer.addWidget(self.notices)
        outer.addLayout(body, 1)
