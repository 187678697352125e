"""The two rows on top: what to hear, and how to recognise it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QSizePolicy, QToolButton, QWidget

from demo.events import Lane
from demo.settings import CHUNKS_MS, Settings
from demo.window.actions import Actions, button
from demo.window.discover import BundleChoice, EngineChoice
from demo.window.widgets import Combo, Segments, caption

LEFT_CHUNKS = ((-1, "All"), (32, "32 chunks"), (16, "16 chunks"), (8, "8 chunks"), (4, "4 chunks"), (0, "None"))
_NARROW = 960  # pixels
DEFAULT_MICROPHONE = "Default microphone"


class SourceBar(QWidget):
    """Listen, the microphone, files, recording, copying."""

    microphone_chosen = Signal(object)  # str | None

    def __init__(self, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.microphones = Combo("Microphone", "Which microphone to listen to")
        self.microphones.addItem(DEFAULT_MICROPHONE, None)
        self.microphones.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.microphones.setMinimumContentsLength(14)
        self.microphones.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.microphones.setMaximumWidth(300)
        self.microphones.setMinimumWidth(150)
        self.microphones.activated.connect(lambda _: self.microphone_chosen.emit(self.microphone))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.listen = button(actions.listen, primary=True)
        self.listen.setMinimumWidth(92)
        refresh, theme, self.partners = button(actions.refresh), button(actions.theme), button(actions.partners)
        self.partners.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        for small in (refresh, theme, self.partners):
            small.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        self.buttons = [button(a) for a in (actions.open, actions.record, actions.copy, actions.save)]
        row.addWidget(self.listen)
        row.addWidget(self.microphones, 4)
        row.addWidget(refresh)
        row.addSpacing(8)
        for made in self.buttons:
            row.addWidget(made)
        row.addStretch(1)
        self.compare = button(actions.compare)
        row.addWidget(self.compare)
        row.addWidget(self.partners)
        row.addWidget(theme)
        for made in (self.listen, refresh, theme, self.compare, self.partners, *self.buttons):
            made.setIconSize(QSize(17, 17))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        style = Qt.ToolButtonStyle
        for made in self.buttons[2:]:  # copy and save say enough by their pictures where there is little room
            wanted = style.ToolButtonIconOnly if self.width() < _NARROW else style.ToolButtonTextBesideIcon
            made.setToolButtonStyle(wanted)

    @property
    def microphone(self) -> str | None:
        """The name chosen; None for the system's default."""
        name = self.microphones.currentData()
        return name if isinstance(name, str) else None

    def choose_microphone(self, name: str | None) -> None:
        """Show ``name``; one that was not found yet is added."""
        index = self.microphones.findData(name) if name is not None else 0
        if index < 0:
            self.microphones.addItem(str(name), name)
            index = self.microphones.count() - 1
        self.microphones.setCurrentIndex(index)

    def offer_microphones(self, names: Sequence[str]) -> None:
        """Fill the list; a chosen microphone that is gone stays in it, as it may come back."""
        chosen = self.microphone
        listed = list(dict.fromkeys([*names, *([chosen] if chosen is not None else [])]))
        if [self.microphones.itemData(i) for i in range(1, self.microphones.count())] != listed:
            self.microphones.clear()
            self.microphones.addItem(DEFAULT_MICROPHONE, None)
            for name in listed:
                self.microphones.addItem(name if name in names else f"{name} (not found)", name)
        self.microphones.setCurrentIndex(listed.index(chosen) + 1 if chosen is not None else 0)


class SettingsBar(QWidget):
    """Precision, chunk length, left context, engine, rescoring: a changed choice gives new settings."""

    changed = Signal(object)  # Settings

    def __init__(self, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings = settings
        self._bundles: list[BundleChoice] = []
        self._partner = settings.compare  # last compared with
        self.precision = Segments("Precision")
        self.chunk = Segments("Chunk length in milliseconds")
        self.left = Combo("Left context", "How much of what was said before a chunk may be looked at")
        self.engine = Combo("Engine and device", "What computes the model, and where")
        self.rescoring = Segments("Rescoring")
        self.chunk.offer([(ms, str(ms), _chunk_tip(ms, i)) for i, ms in enumerate(CHUNKS_MS, 1)])
        tip = "When an utterance ends, the attention decoders choose among its hypotheses (Ctrl+E)"
        self.rescoring.offer([(True, "On", tip), (False, "Off", "Final text is that of the CTC search alone (Ctrl+E)")])
        for value, label in LEFT_CHUNKS:
            self.left.addItem(label, value)
        self.offer_engines([EngineChoice.of(settings.engine)])
        self.offer_bundles([])
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(13)
        grid.setVerticalSpacing(2)
        parts: list[tuple[str, QWidget]] = [
            ("&Precision", self.precision),
            ("Chun&k length, ms", self.chunk),
            ("Left conte&xt", self.left),
            ("En&gine and device", self.engine),
            ("Rescori&ng", self.rescoring),
        ]
        for column, (name, part) in enumerate(parts):
            grid.addWidget(caption(name, part), 0, column)
            grid.addWidget(part, 1, column, Qt.AlignmentFlag.AlignVCenter)
        grid.setColumnStretch(len(parts), 1)
        self.precision.chosen.connect(lambda path: self._change(bundle=path))
        self.chunk.chosen.connect(lambda ms: self._change(chunk_ms=float(ms)))
        self.left.activated.connect(lambda _: self._change(left_chunks=self.left.currentData()))
        self.engine.activated.connect(lambda _: self._choose_engine())
        self.rescoring.chosen.connect(lambda on: self._change(rescoring=on))
        self._show()

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def others(self) -> list[BundleChoice]:
        """Bundles of the same model that can stand beside the one in use."""
        return [b for b in self._bundles if not _same(b.path, self._settings.bundle)]

    @property
    def partner(self) -> Path | None:
        """The bundle that compare mode would put beside the one in use: the last one chosen, else one found."""
        if self._partner is not None and not _same(self._partner, self._settings.bundle):
            known = self.choice(self._partner)
            return known.path if known is not None else self._partner
        return next((b.path for b in self.others), None)

    def choice(self, path: Path) -> BundleChoice | None:
        """What is known of a bundle."""
        return next((b for b in self._bundles if _same(b.path, path)), None)

    def offer_bundles(self, found: Sequence[BundleChoice]) -> None:
        """Bundles of the same model; the one in use is among them, or is all there is."""
        self._bundles = list(found)
        own = self._settings.bundle
        listed = [(b.path, b.label, f"{b.path}: {b.scheme}, {b.megabytes:.1f} MB") for b in found]
        self.precision.offer(listed or [(own, own.name, str(own))])
        self._show()

    def offer_engines(self, found: Sequence[EngineChoice]) -> None:
        """Engines of this machine; the one in use is always among them."""
        own = EngineChoice.of(self._settings.engine)
        self.engine.clear()
        for choice in dict.fromkeys([*found, own]):
            self.engine.addItem(choice.label, (choice.engine, choice.device))
        self._show()

    def adopt(self, settings: Settings) -> None:
        """Show ``settings`` without telling anybody."""
        self._settings = settings
        self._show()

    def show_lane(self, lane: Lane) -> None:
        """What the recognizer really uses, where the settings left it open."""
        if lane.chunk_ms != self._settings.chunk_ms:
            self.chunk.show_value(round(lane.chunk_ms) if lane.chunk_ms in CHUNKS_MS else None)

    def set_compare(self, on: bool) -> None:
        """Add the partner, or take it away."""
        self._change(compare=self.partner if on else None)

    def set_partner(self, partner: Path | None) -> None:
        """Compare with this bundle, now; None: with none."""
        if partner is not None and not _same(partner, self._settings.bundle):
            self._partner = partner
        self.set_compare(partner is not None)

    def toggle_rescoring(self) -> None:
        """On to off, off to on."""
        self.rescoring.choose(not self._settings.rescoring)

    def _choose_engine(self) -> None:
        engine, device = self.engine.currentData()
        self._change(engine=dataclasses.replace(self._settings.engine, engine=engine, device=device))

    def _change(self, **changes: object) -> None:
        settings = dataclasses.replace(self._settings, **changes)  # type: ignore[arg-type]
        if settings.compare is not None and _same(settings.compare, settings.bundle):
            before = self._settings.bundle  # the sides change places
            settings = dataclasses.replace(settings, compare=before if not _same(before, settings.bundle) else None)
        if settings == self._settings:
            return
        self._settings = settings
        self._show()
        self.changed.emit(settings)

    def _show(self) -> None:
        settings = self._settings
        shown = self.choice(settings.bundle)
        self.precision.show_value(shown.path if shown else settings.bundle)
        if settings.chunk_ms is not None:
            self.chunk.show_value(round(settings.chunk_ms) if settings.chunk_ms in CHUNKS_MS else None)
        if self.left.findData(settings.left_chunks) < 0:
            self.left.addItem(f"{settings.left_chunks} chunks", settings.left_chunks)
        self.left.setCurrentIndex(self.left.findData(settings.left_chunks))
        engine = (settings.engine.engine, settings.engine.device)
        listed = [self.engine.itemData(i) for i in range(self.engine.count())]
        self.engine.setCurrentIndex(next((i for i, data in enumerate(listed) if tuple(data) == engine), 0))
        self.rescoring.show_value(settings.rescoring)


def _chunk_tip(ms: int, key: int) -> str:
    return f"Words appear up to {ms} ms after they were said; longer chunks are more accurate (Ctrl+{key})"


def _same(a: Path, b: Path) -> bool:
    """By name alone: nothing is looked up on the disk while drawing."""
    return a.absolute() == b.absolute()
