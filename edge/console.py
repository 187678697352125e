"""Where tables go."""

from __future__ import annotations

from rich.console import Console

_LEAST = 120  # columns; narrower tables would cut numbers


def table_console(markup: bool = True) -> Console:
    """Standard output, wide enough for numbers in a file or a pipe too. ``markup``: read [bold] and the like."""
    console = Console(highlight=False, markup=markup, emoji=False)
    if console.width >= _LEAST:
        return console
    return Console(highlight=False, markup=markup, emoji=False, width=_LEAST)
