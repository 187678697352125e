"""A transcript: finals firm and shaded by confidence, the utterance being spoken grey and slanted below them."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QHelpEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
)
from PySide6.QtWidgets import QFrame, QTextEdit, QToolButton, QToolTip, QWidget

from demo.window.icons import icon
from demo.window.lines import Line, Shown
from demo.window.theme import LIGHT, Palette, scaled_font

_SPACE = 8  # pixels below an utterance
_MARGIN = 14.0


class TranscriptView(QTextEdit):
    """Shows lines; only what changed is laid out again. Scrolls along unless the user scrolled up."""

    def __init__(self, name: str, hint: str = "", parent: QWidget | None = None, scale: float = 1.45) -> None:
        super().__init__(parent)
        self.setObjectName("transcript")
        self.setAccessibleName(name)
        self.setAccessibleDescription("Recognised text; grey and slanted while it may still change")
        self.setReadOnly(True)
        self.setUndoRedoEnabled(False)
        self.setTabChangesFocus(True)
        self.setCursorWidth(0)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setFont(scaled_font(self.font(), scale))
        self.document().setDocumentMargin(2)
        self._small = scaled_font(self.font(), 0.6)
        self._indent = self.fontMetrics().horizontalAdvance("0:00:00") * 0.6 + _MARGIN
        self._hint = hint
        self._lines: list[Line] = []
        self._palette = LIGHT
        self._formats: dict[tuple[int, bool, bool], QTextCharFormat] = {}
        self._following = self._adjusting = False
        self._latest = self._make_latest_button()
        bar = self.verticalScrollBar()
        bar.valueChanged.connect(self._scrolled)
        bar.rangeChanged.connect(self._range_changed)
        self._following = True

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    @property
    def following(self) -> bool:
        """Whether new text scrolls into view."""
        return self._following

    def show_lines(self, lines: Sequence[Line]) -> int | None:
        """Make the document look like ``lines``; the first line that was written, None when none was."""
        dropped = self._drop_gone(lines)
        same = 0
        while same < min(len(lines), len(self._lines)) and (
            lines[same] is self._lines[same] or lines[same] == self._lines[same]
        ):
            same += 1
        if same == len(lines) == len(self._lines):
            return 0 if dropped else None
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()
        if len(self._lines) > max(len(lines), same):
            self._remove_from(cursor, len(lines))
        for i in range(same, len(lines)):
            if i < len(self._lines):
                self._lines[i] = lines[i]
                cursor = QTextCursor(self.document().findBlockByNumber(i))
                cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock, QTextCursor.MoveMode.KeepAnchor)
                cursor.removeSelectedText()
                cursor.setBlockFormat(self._block_format(lines[i]))
            else:
                cursor.movePosition(QTextCursor.MoveOperation.End)
                if self._lines:
                    cursor.insertBlock(self._block_format(lines[i]))
                else:
                    cursor.setBlockFormat(self._block_format(lines[i]))
                self._lines.append(lines[i])
            self._write(cursor, lines[i])
        cursor.endEditBlock()
        self._follow()
        if not same:
            self.viewport().update()  # the hint may come or go
        return same

    def line_height(self, index: int) -> float:
        """Of the text of a line, without the space below."""
        block = self.document().findBlockByNumber(index)
        return self.document().documentLayout().blockBoundingRect(block).height()

    def set_space_below(self, index: int, extra: float) -> None:
        """Room below a line, so that the next one stands beside its partner in another view."""
        block = self.document().findBlockByNumber(index)
        shape = block.blockFormat()
        if block.isValid() and abs(shape.bottomMargin() - _SPACE - extra) >= 0.5:
            shape.setBottomMargin(_SPACE + extra)
            QTextCursor(block).setBlockFormat(shape)

    def set_palette(self, palette: Palette) -> None:
        """Draw all lines again in other colours."""
        self._palette = palette
        self._formats.clear()
        self._latest.setIcon(icon("down", palette.text, 16))
        lines, self._lines = self._lines, []
        self.document().clear()
        self.show_lines(lines)

    @property
    def selected_text(self) -> str:
        """Empty when nothing is selected."""
        return self.textCursor().selectedText().replace("\u2029", "\n")

    def word_at(self, where: QPoint) -> Shown | None:
        """The word under a point of the viewport."""
        at = QPointF(where) + QPointF(self.horizontalScrollBar().value(), self.verticalScrollBar().value())
        position = self.document().documentLayout().hitTest(at, Qt.HitTestAccuracy.ExactHit)
        if position < 0:
            return None
        block = self.document().findBlock(position)
        line = self._lines[block.blockNumber()] if block.blockNumber() < len(self._lines) else Line()
        return line.word_at(position - block.position())

    def scroll_to_latest(self) -> None:
        """Go to the end and follow new text again."""
        self._following = True
        self._follow()

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            word = self.word_at(event.pos())
            if word is None:
                QToolTip.hideText()
            else:
                QToolTip.showText(event.globalPos(), word.tip, self.viewport())
            return True
        return super().viewportEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        painter = QPainter(self.viewport())
        painter.setPen(QColor(self._palette.muted))
        if self._lines:
            self._paint_stamps(painter, event.rect())
        elif self._hint:
            self._paint_hint(painter)
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        size = self._latest.sizeHint()
        self._latest.setGeometry(
            QRect(QPoint(self.width() - size.width() - 18, self.height() - size.height() - 8), size)
        )
        self._follow()

    def _paint_stamps(self, painter: QPainter, region: QRect) -> None:
        layout, scrolled = self.document().documentLayout(), self.verticalScrollBar().value()
        painter.setFont(self._small)
        up = self.fontMetrics().ascent() - painter.fontMetrics().ascent()  # a common base line
        first = self.document().findBlock(max(0, layout.hitTest(QPointF(0, scrolled), Qt.HitTestAccuracy.FuzzyHit)))
        block = first
        while block.isValid() and block.blockNumber() < len(self._lines):
            line, top = self._lines[block.blockNumber()], layout.blockBoundingRect(block).top() - scrolled
            if top > region.bottom():
                break
            if line.stamp:
                painter.drawText(QPointF(2, top + up + painter.fontMetrics().ascent()), line.stamp)
            block = block.next()

    def _paint_hint(self, painter: QPainter) -> None:
        title, _, rest = self._hint.partition("\n")
        area = self.viewport().rect().adjusted(24, 0, -24, 0)
        flags = int(Qt.AlignmentFlag.AlignHCenter | Qt.TextFlag.TextWordWrap)
        small = scaled_font(self.font(), 0.7)
        painter.setFont(scaled_font(self.font(), 1.1, QFont.Weight.DemiBold))
        wide = painter.fontMetrics().boundingRect(area, flags, title)
        painter.setFont(small)
        low = painter.fontMetrics().boundingRect(area, flags, rest)
        top = (area.height() - wide.height() - 8 - low.height()) // 2
        painter.setFont(scaled_font(self.font(), 1.1, QFont.Weight.DemiBold))
        painter.setPen(QColor(self._palette.text))
        painter.drawText(area.adjusted(0, top, 0, 0), flags, title)
        painter.setFont(small)
        painter.setPen(QColor(self._palette.muted))
        painter.drawText(area.adjusted(0, top + wide.height() + 8, 0, 0), flags, rest)

    def _make_latest_button(self) -> QToolButton:
        button = QToolButton(self)
        button.setText("Latest")
        button.setToolTip("Scroll to the latest words")
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.clicked.connect(self.scroll_to_latest)
        button.hide()
        return button

    def _drop_gone(self, lines: Sequence[Line]) -> int:
        """Remove lines that left at the top; how many."""
        if not lines or not self._lines or lines[0] is self._lines[0] or lines[0] == self._lines[0]:
            return 0
        gone = next((i for i, line in enumerate(self._lines) if line is lines[0]), 0)
        if gone:
            document, bar = self.document(), self.verticalScrollBar()
            first, layout, scrolled = document.findBlockByNumber(gone), document.documentLayout(), bar.value()
            top = layout.blockBoundingRect(first).top()
            cursor = QTextCursor(document)
            cursor.setPosition(first.position(), QTextCursor.MoveMode.KeepAnchor)
            cursor.removeSelectedText()
            del self._lines[:gone]
            if not self._following:  # what is being read stays where it is
                moved = top - layout.blockBoundingRect(document.firstBlock()).top()
                self._scroll_to(max(0, scrolled - round(moved)))
        return gone

    def _remove_from(self, cursor: QTextCursor, count: int) -> None:
        """Keep the first ``count`` lines."""
        block = self.document().findBlockByNumber(count)
        cursor.setPosition(max(0, block.position() - 1))
        cursor.movePosition(QTextCursor.MoveOperation.End, QTextCursor.MoveMode.KeepAnchor)
        cursor.removeSelectedText()
        del self._lines[count:]

    def _write(self, cursor: QTextCursor, line: Line) -> None:
        if line.heading:
            cursor.insertText(line.heading, self._format(-1))
        for i, word in enumerate(line.words):
            level = 0 if line.partial else word.level
            if i and line.joint:
                cursor.insertText(line.joint, self._format(0, line.partial))
            cursor.insertText(word.text, self._format(level, line.partial, word.differs))

    def _block_format(self, line: Line) -> QTextBlockFormat:
        shape = QTextBlockFormat()
        shape.setBottomMargin(_SPACE)
        shape.setTopMargin(_SPACE if line.heading and self._lines else 0)
        shape.setLeftMargin(0 if line.heading else self._indent)
        return shape

    def _format(self, level: int, partial: bool = False, differs: bool = False) -> QTextCharFormat:
        """One of a few, kept: a document never forgets a format. Level -1 is a heading."""
        key = (level, partial, differs)
        made = self._formats.get(key)
        if made is None:
            made = self._formats[key] = QTextCharFormat()
            quiet = partial or level < 0
            made.setForeground(QColor(self._palette.muted if quiet else self._palette.text))
            made.setFontItalic(partial)
            if level < 0:
                made.setFont(self._small)
            if differs:
                made.setBackground(QColor(self._palette.difference))
                made.setFontUnderline(True)
            elif level > 0:
                made.setBackground(QColor(self._palette.tint(level)))
        return made

    def _follow(self) -> None:
        bar = self.verticalScrollBar()
        if self._following and bar.value() != bar.maximum():
            self._scroll_to(bar.maximum())

    def _scroll_to(self, value: int) -> None:
        """Not the user's doing."""
        self._adjusting = True
        self.verticalScrollBar().setValue(value)
        self._adjusting = False

    def _range_changed(self) -> None:
        self._follow()

    def _scrolled(self, value: int) -> None:
        if not self._adjusting:
            self._following = value >= self.verticalScrollBar().maximum() - 4
        self._latest.setVisible(not self._following)
