"""What a transcript shows, line by line; Qt-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.runtime import Result

LEVELS = (0.85, 0.65, 0.45)
"""A word of at least the first is sure; below the last it is shaded most."""
MAX_LINES = 200  # kept on screen; the session keeps the whole transcript


@dataclass(frozen=True)
class Shown:
    """One word as drawn; times in ms since the source was opened."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float  # 0..1
    differs: bool = False  # from the other transcript

    @property
    def level(self) -> int:
        """0 (sure) to 3."""
        return sum(self.confidence < bound for bound in LEVELS)

    @property
    def tip(self) -> str:
        """What the pointer over the word shows."""
        return f"{self.text}: {seconds(self.start_ms)} – {seconds(self.end_ms)}, confidence {self.confidence:.0%}"


@dataclass(frozen=True)
class Line:
    """An utterance, or a heading when ``heading`` is set; ``stamp`` stands in the margin."""

    stamp: str = ""
    words: tuple[Shown, ...] = ()
    partial: bool = False
    heading: str = ""
    joint: str = " "  # between words; empty in scripts without spaces

    @property
    def text(self) -> str:
        return self.heading or self.joint.join(word.text for word in self.words)

    def word_at(self, offset: int) -> Shown | None:
        """The word at a character of ``text``; None between words."""
        start = 0
        for word in self.words:
            if start <= offset < start + len(word.text):
                return word
            start += len(word.text) + len(self.joint)
        return None


def line_of(result: Result) -> Line:
    """A finished or partial utterance."""
    words = tuple(Shown(w.text, w.start_ms, w.end_ms, w.confidence) for w in result.words)
    joint = next((j for j in (" ", "") if j.join(w.text for w in words) == result.text), None)
    if joint is None:  # words that do not make the text: the text is what was recognised
        words, joint = (Shown(result.text, result.start_ms, result.end_ms, result.confidence),), " "
    start = words[0].start_ms if words else result.start_ms
    return Line(clock(start), words, not result.is_final, joint=joint)


@dataclass
class Feed:
    """The lines of one transcript: headings and finals, then the utterance being spoken."""

    lines: list[Line] = field(default_factory=list)
    partial: Line | None = None
    earlier: int = 0
    """Utterances no longer among ``lines``."""

    def heading(self, text: str) -> None:
        """Another source; one right after another replaces it."""
        self.partial = None
        if self.lines and self.lines[-1].heading:
            self.lines.pop()
        self._append(Line(heading=text))

    def speak(self, result: Result) -> None:
        """A partial result; an empty one takes the last one away."""
        self.partial = line_of(result) if result.text else None

    def finish(self, result: Result) -> None:
        """A final result."""
        self.partial = None
        if result.text:
            self._append(line_of(result))

    def clear(self) -> None:
        self.lines.clear()
        self.partial = None
        self.earlier = 0

    @property
    def shown(self) -> Sequence[Line]:
        return self.lines if self.partial is None else [*self.lines, self.partial]

    def _append(self, line: Line) -> None:
        self.lines.append(line)
        gone = self.lines[:-MAX_LINES]
        self.earlier += sum(not line.heading for line in gone)
        del self.lines[: len(gone)]


def clock(ms: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(int(ms / 1000), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def seconds(ms: float) -> str:
    """12.34 s, or 1:02.34 from a minute on."""
    minutes, rest = divmod(ms / 1000, 60)
    return f"{int(minutes)}:{rest:05.2f}" if minutes else f"{rest:.2f} s"
