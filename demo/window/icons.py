"""Icons drawn in code on a 24 × 24 grid, so that they follow the palette and stay sharp on every screen."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QLinearGradient, QPainter, QPainterPath, QPen, QPixmap

Draw = Callable[[QPainter], None]
_SCALES = (1.0, 1.5, 2.0, 3.0)


def icon(name: str, colour: str, size: int = 18) -> QIcon:
    """The icon ``name`` in one colour."""
    made = QIcon()
    for scale in _SCALES:
        made.addPixmap(pixmap(name, colour, size, scale))
    return made


def pixmap(name: str, colour: str, size: int = 18, scale: float = 2.0) -> QPixmap:
    """``size`` is in device-independent pixels."""
    picture = QPixmap(round(size * scale), round(size * scale))
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(size * scale / 24, size * scale / 24)
    pen = QPen(QColor(colour), 1.9)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    _ICONS[name](painter)
    painter.end()
    picture.setDevicePixelRatio(scale)
    return picture


def _line(painter: QPainter, *points: tuple[float, float]) -> None:
    painter.drawPolyline([QPointF(x, y) for x, y in points])


def _filled(painter: QPainter) -> QPainter:
    painter.setBrush(painter.pen().color())
    painter.setPen(Qt.PenStyle.NoPen)
    return painter


def _microphone(painter: QPainter) -> None:
    painter.drawRoundedRect(QRectF(9, 3, 6, 11), 3, 3)
    painter.drawArc(QRectF(5.5, 5, 13, 13), 180 * 16, 180 * 16)
    _line(painter, (12, 18), (12, 21))
    _line(painter, (9, 21), (15, 21))


def _stop(painter: QPainter) -> None:
    _filled(painter).drawRoundedRect(QRectF(6, 6, 12, 12), 2, 2)


def _record(painter: QPainter) -> None:
    painter.drawEllipse(QPointF(12, 12), 9, 9)
    _filled(painter).drawEllipse(QPointF(12, 12), 5, 5)


def _open(painter: QPainter) -> None:
    _line(painter, (3, 19), (3, 5), (9, 5), (11, 8), (20, 8), (20, 11))
    _line(painter, (3, 19), (6.5, 11), (22, 11), (18.5, 19), (3, 19))


def _save(painter: QPainter) -> None:
    _line(painter, (12, 3), (12, 15))
    _line(painter, (7.5, 10.5), (12, 15), (16.5, 10.5))
    _line(painter, (4, 16), (4, 20), (20, 20), (20, 16))


def _copy(painter: QPainter) -> None:
    painter.drawRoundedRect(QRectF(9, 9, 11, 12), 2, 2)
    _line(painter, (5.5, 15), (4, 15), (4, 3), (15, 3), (15, 5.5))


def _refresh(painter: QPainter) -> None:
    painter.drawArc(QRectF(4.5, 4.5, 15, 15), 40 * 16, 285 * 16)
    _line(painter, (19.5, 3.5), (18, 7.8), (13.7, 6.6))


def _compare(painter: QPainter) -> None:
    painter.drawRoundedRect(QRectF(3, 4, 7.5, 16), 1.5, 1.5)
    painter.drawRoundedRect(QRectF(13.5, 4, 7.5, 16), 1.5, 1.5)


def _sun(painter: QPainter) -> None:
    painter.drawEllipse(QPointF(12, 12), 4, 4)
    for x, y in ((0, 1), (1, 0), (0.71, 0.71), (0.71, -0.71)):
        for sign in (-1, 1):
            _line(painter, (12 + sign * 7 * x, 12 + sign * 7 * y), (12 + sign * 9.3 * x, 12 + sign * 9.3 * y))


def _moon(painter: QPainter) -> None:
    disc, bite = QPainterPath(), QPainterPath()
    disc.addEllipse(QPointF(12, 12), 8.5, 8.5)
    bite.addEllipse(QPointF(16.5, 8.5), 7.5, 7.5)
    painter.drawPath(disc.subtracted(bite))


def _close(painter: QPainter) -> None:
    _line(painter, (7, 7), (17, 17))
    _line(painter, (17, 7), (7, 17))


def _down(painter: QPainter) -> None:
    _line(painter, (6, 9), (12, 15), (18, 9))


def _info(painter: QPainter) -> None:
    painter.drawEllipse(QPointF(12, 12), 9, 9)
    _line(painter, (12, 11), (12, 16.5))
    _line(painter, (12, 7.5), (12, 7.6))


def _warning(painter: QPainter) -> None:
    _line(painter, (12, 3.5), (21.5, 20), (2.5, 20), (12, 3.5))
    _line(painter, (12, 10), (12, 14))
    _line(painter, (12, 17), (12, 17.1))


def _error(painter: QPainter) -> None:
    painter.drawEllipse(QPointF(12, 12), 9, 9)
    _line(painter, (12, 7), (12, 12.5))
    _line(painter, (12, 16.4), (12, 16.5))


_ICONS: dict[str, Draw] = {
    "microphone": _microphone,
    "stop": _stop,
    "record": _record,
    "open": _open,
    "save": _save,
    "copy": _copy,
    "refresh": _refresh,
    "compare": _compare,
    "sun": _sun,
    "moon": _moon,
    "close": _close,
    "down": _down,
    "info": _info,
    "warning": _warning,
    "error": _error,
}


def application_icon() -> QIcon:
    """A voice on a chip: bars of sound, of which two are lit like two active experts."""
    made = QIcon()
    for size in (16, 24, 32, 48, 64, 128, 256):
        made.addPixmap(_application_pixmap(size))
    return made


def _application_pixmap(size: int) -> QPixmap:
    picture = QPixmap(size, size)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(size / 64, size / 64)
    shade = QLinearGradient(0, 0, 64, 64)
    shade.setColorAt(0, QColor("#2f7df6"))
    shade.setColorAt(1, QColor("#0d2f73"))
    painter.setBrush(shade)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawRoundedRect(QRectF(2, 2, 60, 60), 14, 14)
    for i, height in enumerate((14, 30, 44, 24, 36, 16)):
        painter.setBrush(QColor("#ffd166" if i in (2, 4) else "#ffffff"))
        painter.drawRoundedRect(QRectF(9.5 + i * 8, 32 - height / 2, 5, height), 2.5, 2.5)
    painter.end()
    return picture
