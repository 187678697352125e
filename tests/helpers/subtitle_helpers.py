"""A strict reader of SubRip."""

from __future__ import annotations

import re

_CUE = re.compile(r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n((?:.+\n)+)(?:\n|$)")


def parse(text: str) -> list[tuple[int, int, int, list[str]]]:
    """(number, start in ms, end in ms, lines) of SubRip text; every character of it must belong to a cue."""
    found = []
    end = 0
    for match in _CUE.finditer(text):
        assert match.start() == end, f"no cue: {text[end : match.start()]!r}"
        end = match.end()
        number, *clock = map(int, match.groups()[:9])
        start, stop = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (clock[:4], clock[4:]))
        found.append((number, start, stop, match.group(10).splitlines()))
    assert end == len(text)
    return found
