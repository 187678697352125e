"""jinja2 templates of the page, and what they show. Every text is escaped unless it is Markup."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """Rows of cells for the macro ``table``.

    Args:
        head: of each column; None: no head.
        rows: cells; Markup is a picture or something emphasised.
        columns: per column l left, r right, w left and may break, d right and dim.
        sums: indices of rows that are a total.
        groups: titles over several columns, with their numbers.
    """

    head: Sequence[object] | None
    rows: Sequence[Sequence[object]]
    columns: str
    sums: Collection[int] = ()
    groups: Sequence[tuple[str, int]] = ()


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("quant.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, **values: Any) -> Markup:
    """The template ``name`` of quant/report/templates with ``values``."""
    return Markup(_environment().get_template(name).render(**values))


def emphasised(text: str) -> Markup:
    """A number beyond its limit."""
    return Markup('<span class="miss">{}</span>').format(text)
