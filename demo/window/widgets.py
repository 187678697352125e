"""Small parts that several views use."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QPaintEvent, QPalette, QPixmap
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from demo.window.icons import pixmap
from demo.window.theme import LIGHT, Palette, scaled_font

_COMBO_PADDING = 35  # pixels beside the text of a drop-down list; the style sheet has them too
GAP = 12  # pixels between cards, and inside them


class Card(QFrame):
    """A rounded surface with a title line; ``body`` takes what it shows, ``head`` what stands beside the title."""

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("card")
        self.title = QLabel(title)
        self.title.setObjectName("title")
        self.head = QHBoxLayout()
        self.head.setSpacing(8)
        self.head.addWidget(self.title)
        self.head.addStretch(1)
        self.body = QVBoxLayout()
        self.body.setSpacing(6)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(GAP, 8, GAP, 10)
        outer.setSpacing(6)
        outer.addLayout(self.head)
        outer.addLayout(self.body, 1)


class Painted(QWidget):
    """Draws itself in the colours of a palette, in a font that is ``scale`` times the usual one."""

    def __init__(self, name: str, scale: float, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setFont(scaled_font(self.font(), scale))
        self._palette = LIGHT

    def set_palette(self, palette: Palette) -> None:
        self._palette = palette
        self.update()


def caption(text: str = "", buddy: QWidget | None = None) -> QLabel:
    """A small grey label; ``&`` in its text marks the key that goes to ``buddy``."""
    label = QLabel(text)
    label.setObjectName("caption")
    label.setFont(scaled_font(label.font(), 0.86))
    if buddy is not None:
        label.setBuddy(buddy)
    return label


class Combo(QComboBox):
    """A drop-down list in the shape of the buttons; the style sheet that rounds it takes the arrow away."""

    def __init__(self, name: str, tip: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self._arrow: tuple[tuple[str, float], QPixmap] | None = None

    def paintEvent(self, event: QPaintEvent) -> None:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        room = self.width() - _COMBO_PADDING
        option.currentText = self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideRight, room)  # type: ignore[attr-defined]
        painter = QStylePainter(self)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        look = self.palette().color(QPalette.ColorRole.PlaceholderText).name(), max(1.0, self.devicePixelRatioF())
        if self._arrow is None or self._arrow[0] != look:
            self._arrow = look, pixmap("down", look[0], 13, look[1])
        painter.drawPixmap(self.width() - 21, (self.height() - 13) // 2, self._arrow[1])
        painter.end()


def set_text(label: QLabel, text: str) -> None:
    """``setText`` lays out and repaints even when nothing changed."""
    if label.text() != text:
        label.setText(text)


def set_alarm(label: QLabel, alarm: bool) -> None:
    """Show a value in the colour of errors, or not."""
    _set_property(label, "alarm", alarm)


def _set_property(widget: QWidget, name: str, value: bool) -> None:
    """One that the style sheet looks at."""
    if bool(widget.property(name)) != value:
        widget.setProperty(name, value)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


class Segments(QWidget):
    """One of a few choices, all of them visible; ``chosen`` tells the value. A single stop of the Tab key, where arrow
    keys move."""

    chosen = Signal(object)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._name = name
        self._values: list[object] = []
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self._group.idClicked.connect(self._clicked)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(0)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def offer(self, choices: Sequence[tuple[object, str, str]]) -> None:
        """(value, label, tool tip) of each choice."""
        for button in self._group.buttons():
            self._group.removeButton(button)
            self._row.removeWidget(button)
            button.hide()
            button.deleteLater()
        self._values = [value for value, _, _ in choices]
        for i, (_, label, tip) in enumerate(choices):
            button = QToolButton()
            button.setObjectName("segment")
            places = {0: "first", len(choices) - 1: "last"}
            button.setProperty("place", "only" if len(choices) == 1 else places.get(i, "middle"))
            button.setText(label)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setAccessibleName(f"{self._name}: {label}")
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            self._group.addButton(button, i)
            self._row.addWidget(button)

    @property
    def value(self) -> object | None:
        index = self._group.checkedId()
        return self._values[index] if 0 <= index < len(self._values) else None

    def show_value(self, value: object) -> None:
        """Check the button of ``value`` without telling anybody; none when it is not offered."""
        self._group.setExclusive(False)
        for i, offered in enumerate(self._values):
            self._group.button(i).setChecked(offered == value)
        self._group.setExclusive(True)
        self._mark()

    def choose(self, value: object) -> None:
        """As if its button had been clicked."""
        if value in self._values and value != self.value:
            self._group.button(self._values.index(value)).click()

    def button(self, value: object) -> QToolButton:
        """The button of ``value``, for tests."""
        found = self._group.button(self._values.index(value))
        assert isinstance(found, QToolButton)
        return found

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()), 0)
        index = self._group.checkedId() + step
        if step and 0 <= index < len(self._values):
            self._group.button(index).click()
        elif not step:
            super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self._mark()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._mark()

    def _clicked(self, index: int) -> None:
        self._mark()
        self.chosen.emit(self._values[index])

    def _mark(self) -> None:
        """A ring around the choice while keys go here; its name for those who listen to the screen."""
        checked = self._group.checkedButton()
        self.setAccessibleDescription(checked.text() if checked is not None else "")
        for button in self._group.buttons():
            _set_property(button, "ring", self.hasFocus() and button is (checked or self._group.button(0)))
