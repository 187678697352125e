"""Where tables and notes go."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

_LEAST = 120  # columns; narrower tables would cut numbers

Say = Callable[[str], None]
"""Called with one line per step of a long job."""


def table_console(markup: bool = True) -> Console:
    """Standard output, wide enough for numbers in a file or a pipe too. ``markup``: read [bold] and the like."""
    console = Console(highlight=False, markup=markup, emoji=False)
    if console.width >= _LEAST:
        return console
    return Console(highlight=False, markup=markup, emoji=False, width=_LEAST)


def note(line: str) -> None:
    """One line about the run on standard error; paths may hold [brackets] and :colons:, and are not broken."""
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(line, soft_wrap=True)


def silent(line: str) -> None:
    """For who wants no notes."""
