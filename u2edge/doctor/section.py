"""What one area of the doctor's examination gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """Something found. An error prevents the main job, transcribing with the bundle; a warning spoils it or one part
    of it; a note costs nothing."""

    level: Level
    text: str  # one sentence: what was found
    fix: str = ""  # what to type or change


@dataclass(frozen=True)
class Section:
    """One area: ``facts`` for machines (JSON values), ``lines`` for people."""

    title: str
    facts: dict[str, Any]
    lines: list[str]
    problems: list[Problem] = field(default_factory=list)


def guarded(title: str, examine: Callable[[], Section], level: Level = "warning") -> Section:
    """The section that ``examine`` gives; when it fails, one that says so, as a problem of ``level``: an examination
    never stops the others."""
    try:
        return examine()
    except Exception as error:  # whatever a strange machine does
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Section(
            title,
            {"failed": reason},
            [f"could not be examined ({reason})"],
            [Problem(level, f"{title} could not be examined: {reason}", "report it: u2edge doctor --report")],
        )


def plural(count: int | None, word: str) -> str:
    """1 core, 2 cores."""
    return f"{count} {word}{'' if count == 1 else 's'}"
