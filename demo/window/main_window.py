"""The window: takes the session's events twelve times a second, and tells the session what the user wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QMainWindow, QVBoxLayout, QWidget

from demo.events import Ended, Event, Failed, Heard, Lane, Notice, Opened, Ready, Severity
from demo.session import Session
from demo.settings import Settings
from demo.window import about, discover, files
from demo.window.actions import Actions
from demo.window.controls import SettingsBar, SourceBar
from demo.window.lines import Line, clock
from demo.window.stage import Stage
from demo.window.theme import Look, Palette, Theme
from demo.window.widgets import GAP, caption, set_text

FPS = 12


class MainWindow(QMainWindow):
    """Draws a session and hands it what the user wants. Never waits: all work is the session's or a background
    thread's."""

    def __init__(self, session: Session, theme: Theme, settings: Settings) -> None:
        super().__init__()
        self.session, self.theme = session, theme
        self._background = discover.Background()
        self._queue: list[Path] = []  # files still to be played
        self._active = False  # something is being listened to, or about to be
        self._opening = False  # asked for, and not yet there
        self._source: Opened | None = None
        self._heard = 0  # columns since the source was opened
        self._lanes: tuple[Lane, ...] = ()
        self.actions_ = Actions(self)
        self.source_bar, self.settings_bar = SourceBar(self.actions_), SettingsBar(settings)
        self.stage = Stage()
        self._where, self._model = caption(), caption("Loading the model…")
        self._build()
        self._connect()
        theme.changed.connect(self._set_palette)
        self._set_palette(theme.palette)
        self.setAcceptDrops(True)
        self.setMinimumSize(880, 560)
        self.resize(1100, 720)
        self._timer = QTimer(self)
        self._timer.setInterval(1000 // FPS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()
        self._look_around(settings)

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
        return self._model.text()

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
        self._background.drain()
        for event in self.session.poll():
            self._take(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._timer.stop()
        super().closeEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.play([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])

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
            case Failed():
                set_text(self._model, "Not ready")
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
        self._look_for_bundles(self.session.settings)
        self._show_lanes()

    def _ready(self, lanes: tuple[Lane, ...]) -> None:
        self._lanes = lanes
        self.stage.notices.dismiss("failed")
        known = [self.settings_bar.choice(path) for path in self.settings_bar.settings.bundles]
        known += [None] * (len(lanes) - len(known))
        self.stage.describe(lanes, known, self._source.name if self._source else "")
        self._show_lanes()

    def _show_lanes(self) -> None:
        if self._lanes:
            set_text(self._model, "   |   ".join(lane.title for lane in self._lanes))
            self.settings_bar.show_lane(self._lanes[0])
        self.actions_.compare.setChecked(len(self._lanes) > 1)

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
        source = self._source
        if source is None:
            text = "Starting…" if self._active else "Stopped"
        else:
            at = clock(self._heard * 10)
            text = f"{source.name}   {at}" + (f" / {clock(source.seconds * 1000)}" if source.seconds else "")
        set_text(self._where, text)

    def _set_active(self, active: bool) -> None:
        self._active = active
        self.actions_.show_listening(active, self.theme.palette)
        self._show_source()

    def _toggle_listening(self) -> None:
        if self._active:
            self.stop()
        else:
            self.listen(self.source_bar.microphone)

    def _apply(self, settings: Settings) -> None:
        self.session.apply(settings)
        self.actions_.compare.setChecked(settings.compare is not None)
        used = self.session.settings
        if (settings.bundles, settings.engine, settings.device) != (used.bundles, used.engine, used.device):
            set_text(self._model, "Loading…")

    def _record(self, on: bool) -> None:
        if not on:
            self.session.record(None)
            return
        self.actions_.record.setChecked(False)  # until a folder is chosen
        files.ask_folder(self, "Record audio and transcript to", self.record_to)

    def _copy(self) -> None:
        comparing = self.stage.comparing
        text = (self.stage.compare if comparing else self.stage.transcript).plain_text()
        if not comparing and not self.stage.transcript.textCursor().hasSelection():
            text = self.session.transcript().text  # older lines are no longer on screen
        QGuiApplication.clipboard().setText(text)
        self.statusBar().showMessage(f"Copied {len(text.split())} words", 3000)

    def _save(self) -> None:
        def write(path: Path) -> None:
            transcript = self.session.transcript()
            self._background.do(lambda: files.save(path, transcript), self.stage.take)

        files.ask_save(self, write)

    def _look_around(self, settings: Settings) -> None:
        """Ask for bundles, engines, microphones and recordings; none of them is waited for."""
        self._look_for_bundles(settings)
        self._background.do(discover.engines, self.settings_bar.offer_engines)
        self._background.do(discover.samples, self._offer_samples)
        self._look_for_microphones()

    def _look_for_bundles(self, settings: Settings) -> None:
        def found(choices: list[discover.BundleChoice]) -> None:
            self.settings_bar.offer_bundles(choices)
            other = self.settings_bar.other
            self.actions_.compare.setEnabled(other is not None)
            if other is None:
                self.actions_.compare.setToolTip("There is no other bundle of this model beside the one in use")
            if self._lanes:
                self._ready(self._lanes)

        self._background.do(lambda: discover.bundles(settings.bundle), found)

    def _look_for_microphones(self) -> None:
        self._background.do(discover.microphones, self.source_bar.offer_microphones)

    def _offer_samples(self, paths: list[Path]) -> None:
        for path in paths:
            action = self.actions_.samples.addAction(path.stem)
            action.triggered.connect(lambda _=False, path=path: self.play([path]))
        self.actions_.samples.setEnabled(bool(paths))

    def open_bundle(self, folder: Path) -> None:
        before = self.settings_bar.settings
        settings = Settings(folder, engine=before.engine, device=before.device)
        self.settings_bar.adopt(settings)
        self._apply(settings)
        self._look_for_bundles(settings)

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
            (actions.open, lambda: files.ask_recordings(self, self.play)),
            (actions.save, self._save),
            (actions.copy, self._copy),
            (actions.theme, self.theme.toggle),
            (actions.finish, self.session.finish),
            (actions.clear, self.stage.clear),
            (actions.latest, self.stage.scroll_to_latest),
            (actions.refresh, self._look_for_microphones),
            (actions.bundle, lambda: files.ask_folder(self, "Open a bundle", self.open_bundle)),
            (actions.rescoring, settings.toggle_rescoring),
            (actions.quit, self.close),
            (actions.about, lambda: about.about(self).open()),
            (actions.keys, lambda: about.shortcuts(self, actions.shortcuts()).open()),
        ):
            action.triggered.connect(lambda _=False, method=method: method())
        actions.record.triggered.connect(self._record)
        actions.compare.triggered.connect(settings.set_compare)
        actions.compare.toggled.connect(lambda _: actions.set_palette(self.theme.palette))
        for ms, action in actions.chunks.items():
            action.triggered.connect(lambda _=False, ms=ms: settings.chunk.choose(ms))
        for look, action in actions.looks.items():
            action.triggered.connect(lambda _=False, look=look: self._choose_look(look))
        settings.changed.connect(self._apply)
        self.source_bar.microphone_chosen.connect(lambda name: self.listen(name) if self._active else None)

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
        self.stage.transcript.setFocus()
        bar = self.statusBar()
        bar.setSizeGripEnabled(False)
        bar.setContentsMargins(GAP, 0, GAP, 0)
        bar.addWidget(self._where)
        bar.addPermanentWidget(self._model)
        for label in (self._where, self._model):
            label.setTextFormat(Qt.TextFormat.PlainText)
