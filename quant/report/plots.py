"""Pictures of the report: inline SVG, coloured by the variables of the page, so light, dark and paper work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Cell:
    """Of a heat map. ``depth`` 0..1 is its colour; None: nothing there. ``mark`` draws a frame around it."""

    text: str
    depth: float | None
    title: str = ""
    mark: bool = False


_CELL_W, _CELL_H, _GAP, _CHAR = 52, 20, 2, 6.6


def heat_map(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], name: str) -> Markup:
    """A table of coloured cells, ``cells[row][column]``; ``name`` is read to those who cannot see it."""
    left = int(max((len(row) for row in rows), default=0) * _CHAR) + 12
    width, height = left + len(columns) * _CELL_W, 18 + len(rows) * _CELL_H
    parts = [
        f'<svg class="heat" role="img" aria-label="{escape(name)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
    ]
    for i, column in enumerate(columns):
        parts.append(f'<text class="axis mid" x="{left + (i + 0.5) * _CELL_W:g}" y="11">{escape(column)}</text>')
    for r, (row, line) in enumerate(zip(rows, cells)):
        y = 18 + r * _CELL_H
        parts.append(f'<text class="axis end" x="{left - 8}" y="{y + 13}">{escape(row)}</text>')
        for c, cell in enumerate(line):
            parts.append(_cell(left + c * _CELL_W, y, cell))
    return Markup("".join([*parts, "</svg>"]))


def _cell(x: int, y: int, cell: Cell) -> str:
    box = f'x="{x}" y="{y}" width="{_CELL_W - _GAP}" height="{_CELL_H - _GAP}"'
    shade = (
        'class="none"' if cell.depth is None else f'class="fill" fill-opacity="{max(0.0, min(1.0, cell.depth)):.3f}"'
    )
    frame = f'<rect class="mark" x="{x + 1}" y="{y + 1}" width="{_CELL_W - _GAP - 2}" height="{_CELL_H - _GAP - 2}"/>'
    strong = " on" if cell.depth is not None and cell.depth > 0.6 else ""
    return (
        f"<g><title>{escape(cell.title)}</title><rect {box} {shade}/>{frame if cell.mark else ''}"
        f'<text class="value mid{strong}" x="{x + (_CELL_W - _GAP) / 2:g}" y="{y + 13}">{escape(cell.text)}</text></g>'
    )


def bar(
    value: float, low: float, high: float, limit: float | None = None, bad: bool = False, width: int = 120
) -> Markup:
    """One bar of a table row, from ``low`` to ``high``, with a line at ``limit``."""
    x = _at(value, low, high, width)
    line = "" if limit is None else f'<path class="limit" d="M{_at(limit, low, high, width):.1f} 0V12"/>'
    return Markup(
        f'<svg class="bar" aria-hidden="true" viewBox="0 0 {width} 12" width="{width}" height="12">'
        f'<rect class="track" width="{width}" height="8" y="2"/>'
        f'<rect class="{"bad" if bad else "fill"}" width="{max(x, 0.5):.1f}" height="8" y="2"/>{line}</svg>'
    )


def interval(value: float, low: float, high: float, reach: float, limit: float) -> Markup:
    """A confidence interval around zero: axis from -``reach`` to ``reach``, a line at 0 and one at ``limit``."""
    width = 180
    a, x, b = (_at(v, -reach, reach, width) for v in (low, value, high))
    zero, bound = _at(0.0, -reach, reach, width), _at(limit, -reach, reach, width)
    return Markup(
        f'<svg class="interval" aria-hidden="true" viewBox="0 0 {width} 14" width="{width}" height="14">'
        f'<path class="zero" d="M{zero:.1f} 0V14"/><path class="limit" d="M{bound:.1f} 0V14"/>'
        f'<path class="span" d="M{a:.1f} 7H{b:.1f}M{a:.1f} 4V10M{b:.1f} 4V10"/>'
        f'<circle class="{"bad" if value > limit else "fill"}" cx="{x:.1f}" cy="7" r="3.5"/></svg>'
    )


def gauge(value: float, limit: float, high: float, low: float, passed: bool) -> Markup:
    """The small scale under a number of the verdict."""
    width = 200
    x, bound = _at(value, low, high, width), _at(limit, low, high, width)
    return Markup(
        f'<svg class="gauge" aria-hidden="true" viewBox="0 0 {width} 12" width="{width}" height="12">'
        f'<path class="track" d="M0 6H{width}"/><path class="limit" d="M{bound:.1f} 0V12"/>'
        f'<circle class="{"good" if passed else "bad"}" cx="{min(max(x, 4), width - 4):.1f}" cy="6" r="4"/></svg>'
    )


def _at(value: float, low: float, high: float, width: int) -> float:
    return width * min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
