"""Everything a user can do, with its shortcut; buttons and menus share these."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMainWindow, QMenu, QToolButton

from demo.settings import CHUNKS_MS
from demo.window.icons import icon
from demo.window.partners import PartnerMenu
from demo.window.theme import Look, Palette


class Actions:
    """The actions of one window. Texts carry the mnemonics of the buttons; menus show the same."""

    def __init__(self, window: QMainWindow) -> None:
        self._window = window
        self._icons: dict[QAction, str] = {}

        def make(text: str, keys: str, tip: str, picture: str = "", checkable: bool = False) -> QAction:
            action = QAction(text, window)
            if keys:
                action.setShortcut(QKeySequence(keys))
            action.setToolTip(f"{tip} ({keys})" if keys else tip)
            action.setCheckable(checkable)
            action.setIconText(_beside_icon(text))
            if picture:
                self._icons[action] = picture
            return action

        self.listen = make("&Listen", "Ctrl+L", "Listen to the microphone", "microphone")
        self.open = make("&Open…", "Ctrl+O", "Play an audio file at its own pace", "open")
        self.record = make("&Record", "Ctrl+R", "Record audio and transcript to a folder", "record", checkable=True)
        self.save = make("S&ave…", "Ctrl+S", "Save the transcript as text, subtitles or JSON", "save")
        self.copy = make("&Copy", "Ctrl+Shift+C", "Copy the selected text, or the whole transcript", "copy")
        self.compare = make(
            "Co&mpare", "Ctrl+D", "Hear the same audio with fp32 and int8 side by side", "compare", checkable=True
        )
        self.partner = make("Another &folder…", "Ctrl+Shift+D", "Compare with a bundle from any folder")
        self.partners = make("Compare &with", "", "What to compare with", "down")
        self.partner_menu = PartnerMenu(self.partner, window)
        self.partners.setMenu(self.partner_menu)
        self.theme = make("Light or dark", "Ctrl+T", "Switch between light and dark", "moon")
        self.finish = make("&Finish the utterance", "Ctrl+Return", "End the utterance now")
        self.clear = make("Clear the &screen", "Ctrl+K", "Empty the transcript on screen; a recording keeps it")
        self.latest = make("Latest &words", "Ctrl+End", "Scroll to the latest words")
        self.refresh = make("&Update microphones", "F5", "Look for microphones again", "refresh")
        self.bundle = make("Open &bundle…", "Ctrl+B", "Use another bundle, a folder with manifest.json")
        self.rescoring = make("&Rescoring", "Ctrl+E", "Rescoring on or off")
        self.quit = make("&Quit", "Ctrl+Q", "Close the window")
        self.keys = make("&Keyboard shortcuts", "F1", "All shortcuts")
        self.about = make("&About u2edge", "", "Version and licence")
        self.forget = make("For&get these settings", "", "Begin next time as the first time")
        self.chunks = {ms: make(f"{ms} ms", f"Ctrl+{i}", f"Chunks of {ms} ms") for i, ms in enumerate(CHUNKS_MS, 1)}
        self.looks: dict[Look, QAction] = {}
        group = QActionGroup(window)
        for look, text in ((Look.SYSTEM, "As the &system"), (Look.LIGHT, "&Light"), (Look.DARK, "&Dark")):
            self.looks[look] = make(text, "", f"Colours: {look.value}", checkable=True)
            group.addAction(self.looks[look])
        self.samples = QMenu("&Bundled recordings", window)
        self.samples.setEnabled(False)
        for action in self.all():
            window.addAction(action)

    def all(self) -> list[QAction]:
        """Every action of the window."""
        found = [value for value in vars(self).values() if isinstance(value, QAction)]
        return [*found, *self.chunks.values(), *self.looks.values()]

    def fill_menus(self) -> None:
        """The menu bar."""
        bar = self._window.menuBar()
        file, speech, view, help_ = (bar.addMenu(name) for name in ("&File", "&Speech", "&View", "&Help"))
        file.addAction(self.open)
        file.addMenu(self.samples)
        file.addAction(self.bundle)
        file.addSeparator()
        file.addActions([self.record, self.save, self.copy])
        file.addSeparator()
        file.addAction(self.quit)
        speech.addActions([self.listen, self.finish, self.refresh])
        speech.addSeparator()
        chunks = speech.addMenu("Chunk len&gth")
        chunks.addActions(list(self.chunks.values()))
        speech.addActions([self.rescoring, self.compare, self.partners])
        look = view.addMenu("&Colours")
        look.addActions(list(self.looks.values()))
        look.addSeparator()
        look.addAction(self.theme)
        view.addActions([self.latest, self.clear])
        view.addSeparator()
        view.addAction(self.forget)
        help_.addActions([self.keys, self.about])

    def set_palette(self, palette: Palette) -> None:
        """Draw the icons in the colours of ``palette``."""
        self._icons[self.theme] = "sun" if palette.is_dark else "moon"
        for action, name in self._icons.items():
            colour = palette.error if name == "record" else palette.text
            if action is self.listen:
                colour = palette.on_accent
            action.setIcon(icon(name, colour))
        checked = icon("compare", palette.on_accent if self.compare.isChecked() else palette.text)
        self.compare.setIcon(checked)

    def show_listening(self, active: bool, palette: Palette) -> None:
        """The first button starts or stops."""
        self._icons[self.listen] = "stop" if active else "microphone"
        self.listen.setText("S&top" if active else "&Listen")
        self.listen.setIconText(_beside_icon(self.listen.text()))
        self.listen.setToolTip("Stop (Ctrl+L)" if active else "Listen to the microphone (Ctrl+L)")
        self.listen.setIcon(icon(self._icons[self.listen], palette.on_accent))

    def shortcuts(self) -> list[tuple[str, str]]:
        """(keys, what they do) of all actions that have keys."""
        lengths = list(self.chunks.values())
        single = [action for action in self.all() if action not in lengths and not action.shortcut().isEmpty()]
        found = [(action.shortcut().toString(), action.toolTip().rpartition(" (")[0]) for action in single]
        ends = lengths[0].shortcut().toString(), lengths[-1].shortcut().toString()
        return [*found, (" … ".join(ends), f"Chunk length, {CHUNKS_MS[0]} to {CHUNKS_MS[-1]} ms")]


def _beside_icon(text: str) -> str:
    """With some room before it, and with its mnemonic, which Qt would drop."""
    return " " + text.rstrip("…")


def button(action: QAction, primary: bool = False) -> QToolButton:
    """A button for an action."""
    made = QToolButton()
    made.setDefaultAction(action)
    made.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    made.setAccessibleName(action.text().replace("&", "").rstrip("…"))
    made.setAccessibleDescription(action.toolTip())
    if primary:
        made.setObjectName("primary")
    return made
