"""Tables and notes of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quant.report.plots import Markup, escape

_CLASS = {"l": "", "r": ' class="r"', "w": ' class="wrap"', "d": ' class="r dim"'}


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def table(
    head: Sequence[object] | None,
    rows: Iterable[Sequence[object]],
    columns: str,
    sums: Iterable[int] = (),
    groups: Sequence[tuple[str, int]] = (),
) -> Markup:
    """Cells are escaped unless they are Markup.

    Args:
        head: of each column; None: no head.
        rows: cells.
        columns: per column l left, r right, w left and may break, d right and dim.
        sums: rows that are a total.
        groups: titles over several columns, with their numbers.
    """
    strong = set(sums)
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{_CLASS[kind]}>{escape(cell)}</td>" for kind, cell in zip(columns, row, strict=True))
        lines.append(f'<tr class="sum">{cells}</tr>' if index in strong else f"<tr>{cells}</tr>")
    top = ""
    if head is not None:
        cells = "".join(
            '<th scope="col"' + (' class="r"' if kind in "rd" else "") + f">{escape(cell)}</th>"
            for kind, cell in zip(columns, head, strict=True)
        )
        above = "".join(f'<th scope="colgroup" colspan="{span}">{escape(title)}</th>' for title, span in groups)
        top = f"<thead>{f'<tr class=over>{above}</tr>' if above else ''}<tr>{cells}</tr></thead>"
    return Markup(f'<div class="scroll"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>')


def note(text: str) -> Markup:
    """A sentence under a heading."""
    return Markup(f'<p class="note">{escape(text)}</p>')


def missing(text: str, command: str) -> Markup:
    """What is not there, and the command that makes it."""
    return Markup(f'<div class="missing">{escape(text)}<pre>{escape(command)}</pre></div>')


def details(title: str, content: Markup) -> Markup:
    """Folded away; printed browsers show the title only, so nothing that decides belongs here."""
    return Markup(f"<details><summary>{escape(title)}</summary>{content}</details>")
