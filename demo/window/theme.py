"""Colours, fonts and the style sheet; light and dark, as the system is or as the user chose.

Every pair of text and background meets WCAG 2.1 AA (contrast of 4.5 or more), which a test computes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

PREFERRED_FONTS = ("Inter", "Noto Sans", "Cantarell", "Ubuntu", "Open Sans")
_PLAIN_FONTS = ("DejaVu Sans", "Bitstream Vera Sans", "Sans Serif", "Sans", "sans-serif")
TINTS = (0.0, 0.13, 0.26, 0.40)
"""How much of the warning colour lies behind a word, from sure to unsure."""


@dataclass(frozen=True)
class Palette:
    """One look; colours as #rrggbb."""

    name: str
    window: str
    surface: str
    raised: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    ok: str
    warning: str
    error: str
    difference: str  # behind words that differ in compare mode

    @property
    def is_dark(self) -> bool:
        return self.name == "dark"

    def tint(self, level: int) -> str:
        """Background of a word whose confidence is of ``level``, 0 (sure) to 3."""
        return mix(self.surface, self.warning, TINTS[level])

    def readable_pairs(self) -> list[tuple[str, str]]:
        """(text, background) of all texts that are drawn."""
        pairs = [(ink, paper) for ink in (self.text, self.muted) for paper in (self.window, self.surface, self.raised)]
        pairs += [(ink, self.surface) for ink in (self.accent, self.ok, self.warning, self.error)]
        pairs += [(self.text, self.tint(level)) for level in range(len(TINTS))]
        return [*pairs, (self.text, self.difference), (self.on_accent, self.accent)]


LIGHT = Palette(
    name="light",
    window="#f3f5f9",
    surface="#ffffff",
    raised="#e9edf4",
    border="#d3dae6",
    text="#151a24",
    muted="#566072",
    accent="#1a5fd0",
    on_accent="#ffffff",
    ok="#137a45",
    warning="#9a5b00",
    error="#c0261c",
    difference="#ffd2d9",
)
DARK = Palette(
    name="dark",
    window="#0e1117",
    surface="#161b24",
    raised="#222936",
    border="#2c3545",
    text="#e9edf5",
    muted="#9ba7bb",
    accent="#6cb2ff",
    on_accent="#0b1220",
    ok="#55d394",
    warning="#f2b950",
    error="#ff8078",
    difference="#6b2236",
)


class Look(Enum):
    """What the user asked for."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


class Theme(QObject):
    """The palette in force. Emits ``changed`` when the system or the user switches."""

    changed = Signal(object)  # Palette

    def __init__(self, application: QApplication, look: Look = Look.SYSTEM) -> None:
        super().__init__(application)
        self._application, self._look = application, look
        self._palette: Palette | None = None
        application.setStyle("Fusion")
        application.setFont(interface_font())
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._refresh)
        self._refresh()

    @property
    def palette(self) -> Palette:
        return self._palette or LIGHT

    @property
    def look(self) -> Look:
        return self._look

    def choose(self, look: Look) -> None:
        """Follow the system, or stay light or dark."""
        self._look = look
        self._refresh()

    def toggle(self) -> None:
        """The other one, whatever the system says."""
        self.choose(Look.LIGHT if self.palette.is_dark else Look.DARK)

    def _refresh(self, *_: object) -> None:
        dark = self._look is Look.DARK
        if self._look is Look.SYSTEM:
            dark = QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
        palette = DARK if dark else LIGHT
        if palette is self._palette:
            return
        self._palette = palette
        self._application.setPalette(qt_palette(palette))
        self._application.setStyleSheet(style_sheet(palette))
        self.changed.emit(palette)


def interface_font() -> QFont:
    """The system's font; a better one that is installed where the system has only a fallback."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
    if font.family() in _PLAIN_FONTS:
        installed = set(QFontDatabase.families())
        family = next((name for name in PREFERRED_FONTS if name in installed), font.family())
        font = QFont(family)
    font.setPointSizeF(max(9.5, min(font.pointSizeF(), 13.0)) if font.pointSizeF() > 0 else 10.0)
    return font


def scaled_font(base: QFont, factor: float, weight: QFont.Weight | None = None) -> QFont:
    """``base`` larger or smaller."""
    font = QFont(base)
    font.setPointSizeF(base.pointSizeF() * factor)
    if weight is not None:
        font.setWeight(weight)
    return font


def mix(base: str, other: str, share: float) -> str:
    """``share`` (0..1) of ``other`` laid over ``base``."""
    a, b = QColor(base), QColor(other)
    parts = zip((a.red(), a.green(), a.blue()), (b.red(), b.green(), b.blue()))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in parts)


def qt_palette(palette: Palette) -> QPalette:
    """For the widgets that Qt draws itself: menus, combo boxes, dialogs."""
    role = QPalette.ColorRole
    colours = {
        role.Window: palette.window,
        role.WindowText: palette.text,
        role.Base: palette.surface,
        role.AlternateBase: palette.raised,
        role.Text: palette.text,
        role.Button: palette.surface,
        role.ButtonText: palette.text,
        role.BrightText: palette.error,
        role.ToolTipBase: palette.raised,
        role.ToolTipText: palette.text,
        role.PlaceholderText: palette.muted,
        role.Highlight: palette.accent,
        role.HighlightedText: palette.on_accent,
        role.Link: palette.accent,
        role.Light: palette.raised,
        role.Midlight: palette.raised,
        role.Mid: palette.border,
        role.Dark: palette.border,
        role.Shadow: palette.window,
    }
    made = QPalette()
    for which, colour in colours.items():
        made.setColor(which, QColor(colour))
    for which in (role.Text, role.ButtonText, role.WindowText):
        made.setColor(QPalette.ColorGroup.Disabled, which, QColor(mix(palette.surface, palette.muted, 0.6)))
    return made


_SHEET = """
QMainWindow, QDialog { background: @window; }
QToolTip { background: @raised; color: @text; border: 1px solid @border; padding: 4px 6px; }
QFrame#card { background: @surface; border: 1px solid @border; border-radius: 10px; }
QLabel#caption { color: @muted; }
QLabel#title { color: @text; font-weight: 600; }
QLabel#value { color: @text; font-weight: 600; }
QLabel#value[alarm="true"] { color: @error; }
QTextEdit#transcript { background: transparent; border: none; color: @text; selection-background-color: @accent;
  selection-color: @on_accent; }
QToolButton { background: @surface; color: @text; border: 1px solid @border; border-radius: 7px; padding: 5px 10px; }
QToolButton:hover { background: @raised; }
QToolButton:pressed { background: @border; }
QToolButton:checked { background: @accent; color: @on_accent; border-color: @accent; }
QToolButton:focus { border: 2px solid @accent; padding: 4px 9px; }
QToolButton:checked:focus { border: 2px solid @text; }
QToolButton:disabled { color: @faint; }
QToolButton::menu-indicator { image: none; width: 0; }
QToolButton#primary { background: @accent; color: @on_accent; border-color: @accent; font-weight: 600; }
QToolButton#primary:hover { background: @accent_hover; }
QToolButton#primary:focus { border: 2px solid @text; }
QToolButton#segment { border-radius: 0; border-right-width: 0; padding: 4px 8px; min-width: 25px; }
QToolButton#segment[place="first"] { border-top-left-radius: 7px; border-bottom-left-radius: 7px; }
QToolButton#segment[place="last"] { border-top-right-radius: 7px; border-bottom-right-radius: 7px;
  border-right-width: 1px; }
QToolButton#segment[place="only"] { border-radius: 7px; border-right-width: 1px; }
QToolButton#segment[ring="true"] { border: 2px solid @text; padding: 3px 7px; }
QComboBox { background: @surface; color: @text; border: 1px solid @border; border-radius: 7px;
  padding: 4px 24px 4px 9px; }
QComboBox:hover { background: @raised; }
QComboBox:focus { border: 2px solid @accent; padding: 3px 23px 3px 8px; }
QComboBox::drop-down { border: none; width: 0; }
QComboBox QAbstractItemView { background: @surface; color: @text; border: 1px solid @border; padding: 3px;
  selection-background-color: @accent; selection-color: @on_accent; outline: none; }
QToolButton#flat { background: transparent; border: none; padding: 3px; }
QToolButton#flat:hover { background: @raised; }
QToolButton#flat:focus { border: 2px solid @accent; padding: 1px; }
QMenuBar { background: @window; color: @text; }
QMenuBar::item { padding: 5px 10px; background: transparent; border-radius: 5px; }
QMenuBar::item:selected { background: @raised; }
QStatusBar { background: @window; color: @muted; }
QStatusBar QLabel { color: @muted; }
QStatusBar::item { border: none; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 2px; }
QScrollBar::handle:vertical { background: @border; border-radius: 3px; min-height: 28px; }
QScrollBar::handle:vertical:hover { background: @muted; }
QScrollBar::add-line, QScrollBar::sub-line { height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
"""


def style_sheet(palette: Palette) -> str:
    """What Qt's palette cannot say."""
    colours = {field.name: getattr(palette, field.name) for field in fields(palette)}
    colours["accent_hover"] = mix(palette.accent, palette.text, 0.15)
    colours["faint"] = mix(palette.surface, palette.muted, 0.6)
    sheet = _SHEET
    for name in sorted(colours, key=len, reverse=True):
        sheet = sheet.replace(f"@{name}", colours[name])
    return sheet


def contrast(ink: str, paper: str) -> float:
    """Contrast ratio of two colours, 1..21 (WCAG 2.1, section 1.4.3)."""
    bright, dim = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
