"""The window: takes the session's events twelve times a second, and tells the session what the user wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QMainWindow, QVBoxLayout, QWidget

from demo.events import Ended, Event, Failed, Heard, Lane, Notice, Opened, Ready, Severity
from demo.session import Session
from demo.settings import Settings
from demo.window import about, discover, files
from demo.window.actions import Actions
from demo.window.choices import Choices
from demo.window.controls import SettingsBar, SourceBar
from demo.window.lines import Line
from demo.window.remembered import Remembered
from demo.window.stage import Stage
from demo.window.status import StatusLine
from demo.window.theme import Look, Palette, Theme
from demo.window.widgets import GAP

FPS = 12


class MainWindow(QMainWindow):
    """Draws a session and hands it what the user wants. Never waits: all work is the session's or a background
    thread's."""

    def __init__(
        self, session: Session, theme: Theme, settings: Settings, remembered: Remembered | None = None
    ) -> None:
        super().__init__()
        self.session, self.theme = session, theme
        self.remembered = remembered or Remembered()
        self._queue: list[Path] = []  # files still to be played
        self._active = False  # something is being listened to, or about to be
        self._opening = False  # asked for, and not yet there
        self._source: Opened | None = None
        self._heard = 0  # columns since the source was opened
        self._lanes: tuple[Lane, ...] = ()
        self.actions_ = Actions(self)
        self.source_bar, self.settings_bar = SourceBar(self.actions_), SettingsBar(settings)
        self.stage = Stage()
        self.status = StatusLine()
        self.source_bar.choose_microphone(self.remembered.microphone)
        self._choices = Choices(self.actions_, self.source_bar, self.settings_bar, self.play, self._bundles_known)
        self._build()
        self._connect()
        theme.changed.connect(self._set_palette)
        self._set_palette(theme.palette)
        self.setAcceptDrops(True)
        self.setMinimumSize(880, 560)
        self.resize(1100, 720)
        if (geometry := self.remembered.geometry) is not None:
            self.restoreGeometry(geometry)
        self._timer = QTimer(self)
        self._timer.setInterval(1000 // FPS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()
        self._choices.look_around(settings)

    @property
    def ready(self) -> bool:
        """Whether a recognizer is loaded."""
        return bool(self._lanes)

    @property
    def listening(self) -> bool:
        """Whether something is heard, or about to be."""
        return self._active

    @property
    def lines(self) -> Sequence[Line]:
        """Of the transcript on screen."""
        return self.stage.lines

    @property
    def model(self) -> str:
        """What the status bar says about the recognizers."""
        return self.status.model

    def play(self, paths: Sequence[Path]) -> None:
        """Files one after another, from now."""
        self._queue = list(paths[1:])
        if paths:
            self._opening = True
            self.session.play(paths[0])
            self._set_active(True)

    def listen(self, microphone: str | None) -> None:
        """To a microphone by name; None is the system's default."""
        self._queue.clear()
        self.source_bar.choose_microphone(microphone)
        self._opening = True
        self.session.listen(microphone)
        self._set_active(True)

    def listen_again(self, microphone: str) -> None:
        """To the microphone of the last time, if it is there; else to the system's default."""
        self._set_active(True)

        def found(names: list[str]) -> None:
            if self._opening or not self._active:
                return  # the user wanted something else meanwhile
            if microphone not in names:
                self._say(f"The microphone of the last time is not there ({microphone}): the system's default is used.")
            self.listen(microphone if microphone in names else None)

        self._choices.do(discover.microphones, found)

    def stop(self) -> None:
        """Stop listening or playing."""
        self._queue.clear()
        self._opening = False
        self.session.stop()
        self._set_active(False)

    def record_to(self, folder: Path) -> None:
        """Start recording to a folder."""
        self.session.record(folder)
        self.actions_.record.setChecked(True)

    def tick(self) -> None:
        """Draw what happened since the last time."""
        self._choices.drain()
        for event in self.session.poll():
            self._take(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._timer.stop()
        self.remembered.keep(self.session.settings)
        self.remembered.look, self.remembered.geometry = self.theme.look, self.saveGeometry()
        super().closeEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.play([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])

    def _say(self, text: str) -> None:
        self.stage.take(Notice("remembered", text))

    def _begin_plainly(self, settings: Settings, why: str) -> None:
        """What was remembered does not load: begin as the first time."""
        self.remembered.refused(why)
        self._say(f"The settings of the last time do not work any more ({why}); the demo begins without them.")
        self.settings_bar.adopt(settings)
        self.session.apply(settings)
        self._choices.look_for_bundles(settings)

    def _forget(self) -> None:
        self.remembered.forget()
        self.status.showMessage("Nothing of this window is remembered for the next start", 5000)

    def _take(self, event: Event) -> None:
        self.stage.take(event)
        match event:
            case Heard():
                self._heard += len(event.columns)
                self._show_source()
            case Notice(severity=Severity.ERROR):
                self._trouble(event.topic)
            case Ready():
                self._ready(event.lanes)
            case Opened():
                self._opened(event)
            case Ended():
                self._ended()
            case Failed() if not self._lanes and self.remembered.plain is not None:
                self._begin_plainly(self.remembered.plain, event.text)
            case Failed():
                self.status.show_model("Not ready")
                self.stage.take(Notice("failed", event.text, Severity.ERROR))
                self._opening = False
                self._set_active(False)

    def _trouble(self, topic: str) -> None:
        if topic == "recording":
            self.actions_.record.setChecked(False)
        if topic == "settings":
            self._refused()
        if self._opening and topic in ("file", "microphone"):  # it could not be opened
            self._opening = False
            self._ended()

    def _refused(self) -> None:
        """The session goes on as before; so do the controls."""
        self.settings_bar.adopt(self.session.settings)
        self._choices.look_for_bundles(self.session.settings)
        self._show_lanes()

    def _ready(self, lanes: tuple[Lane, ...]) -> None:
        self._lanes = lanes
        self.stage.notices.dismiss("failed")
        known = [self.settings_bar.choice(path) for path in self.settings_bar.settings.bundles]
        known += [None] * (len(lanes) - len(known))
        self.stage.describe(lanes, known, self._source.name if self._source else "")
        self._show_lanes()

    def _bundles_known(self) -> None:
        if self._lanes:
            self._ready(self._lanes)

    def _show_lanes(self) -> None:
        if self._lanes:
            self.status.show_model("   |   ".join(lane.title for lane in self._lanes))
            self.settings_bar.show_lane(self._lanes[0])
        self.actions_.compare.setChecked(len(self._lanes) > 1)
        self._choices.offer_partners()

    def _opened(self, source: Opened) -> None:
        self._source, self._heard, self._opening = source, 0, False
        self._set_active(True)
        self.stage.heading(source.name)
        self.setWindowTitle(f"{source.name} – u2edge")
        self._show_source()

    def _ended(self) -> None:
        self._source = None
        self.stage.level.rest()
        if self._opening:  # what ended made way for what comes
            return
        if self._queue:
            self.play(self._queue)
            return
        self._set_active(False)
        self.setWindowTitle("u2edge")

    def _show_source(self) -> None:
        self.status.show_source(self._source, self._heard * 10, self._active)

    def _set_active(self, active: bool) -> None:
        self._active = active
        self.actions_.show_listening(active, self.theme.palette)
        self._show_source()

    def _choose_microphone(self, name: str | None) -> None:
        self.remembered.microphone = name
        if self._active:
            self.listen(name)

    def _toggle_listening(self) -> None:
        if self._active:
            self.stop()
        else:
            self.listen(self.source_bar.microphone)

    def _apply(self, settings: Settings) -> None:
        self.session.apply(settings)
        self.actions_.compare.setChecked(settings.compare is not None)
        used = self.session.settings
        if (settings.bundles, settings.engine) != (used.bundles, used.engine):
            self.status.show_model("Loading…")

    def _record(self, on: bool) -> None:
        if not on:
            self.session.record(None)
            return
        self.actions_.record.setChecked(False)  # until a folder is chosen
        files.ask_folder(self, self.remembered, "Record audio and transcript to", "recording", self.record_to)

    def _copy(self) -> None:
        # Without a selection everything, also what is no longer on screen.
        text = self.stage.selected_text or self.stage.titled([self.session.transcript(i).text for i in (0, 1)])
        QGuiApplication.clipboard().setText(text)
        self.status.showMessage(f"Copied {len(text.split())} words", 3000)

    def _save(self) -> None:
        def write(path: Path) -> None:
            transcript = self.session.transcript()
            self._choices.do(lambda: files.save(path, transcript), self.stage.take)

        files.ask_save(self, self.remembered, write)

    def _ask_bundle(self, title: str, then: Callable[[Path], None]) -> None:
        files.ask_folder(self, self.remembered, title, "bundles", then)

    def open_bundle(self, folder: Path) -> None:
        before = self.settings_bar.settings
        settings = Settings(folder, engine=before.engine)
        self.settings_bar.adopt(settings)
        self._apply(settings)
        self._choices.look_for_bundles(settings)

    def _set_palette(self, palette: Palette) -> None:
        self.actions_.set_palette(palette)
        self.actions_.show_listening(self._active, palette)
        for look, action in self.actions_.looks.items():
            action.setChecked(look is self.theme.look)
        self.stage.set_palette(palette)

    def _choose_look(self, look: Look) -> None:
        self.theme.choose(look)
        self._set_palette(self.theme.palette)

    def _connect(self) -> None:
        actions, settings = self.actions_, self.settings_bar
        for action, method in (
            (actions.listen, self._toggle_listening),
            (actions.open, lambda: files.ask_recordings(self, self.remembered, self.play)),
            (actions.save, self._save),
            (actions.copy, self._copy),
            (actions.theme, self.theme.toggle),
            (actions.finish, self.session.finish),
            (actions.clear, self.stage.clear),
            (actions.latest, self.stage.scroll_to_latest),
            (actions.refresh, self._choices.look_for_microphones),
            (actions.bundle, lambda: self._ask_bundle("Open a bundle", self.open_bundle)),
            (actions.partner, lambda: self._ask_bundle("Compare with a bundle", settings.set_partner)),
            (actions.forget, self._forget),
            (actions.rescoring, settings.toggle_rescoring),
            (actions.quit, self.close),
            (actions.about, lambda: about.about(self).open()),
            (actions.keys, lambda: about.shortcuts(self, actions.shortcuts()).open()),
        ):
            action.triggered.connect(lambda _=False, method=method: method())
        actions.record.triggered.connect(self._record)
        actions.compare.triggered.connect(settings.set_compare)
        actions.partner_menu.chosen.connect(settings.set_partner)
        actions.compare.toggled.connect(lambda _: actions.set_palette(self.theme.palette))
        for ms, action in actions.chunks.items():
            action.triggered.connect(lambda _=False, ms=ms: settings.chunk.choose(ms))
        for look, action in actions.looks.items():
            action.triggered.connect(lambda _=False, look=look: self._choose_look(look))
        settings.changed.connect(self._apply)
        self.source_bar.microphone_chosen.connect(self._choose_microphone)

    def _build(self) -> None:
        self.setWindowTitle("u2edge")
        self.actions_.fill_menus()
        centre = QWidget()
        outer = QVBoxLayout(centre)
        outer.setContentsMargins(GAP + 2, 6, GAP + 2, 4)
        outer.setSpacing(GAP - 2)
        outer.addWidget(self.source_bar)
        outer.addWidget(self.settings_bar)
        outer.addWidget(self.stage, 1)
        self.setCentralWidget(centre)
        self.setStatusBar(self.status)
        self.stage.transcript.setFocus()
