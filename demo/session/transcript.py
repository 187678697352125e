"""What was said so far. The text is kept; when each word was said, for the last utterances only."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, replace

from edge.runtime import Result, Word

DETAILED = 2000  # utterances that keep their words
_WORD = struct.Struct("=3d")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A finished utterance. ``source`` counts the sources opened before its own; times are ms since that was opened."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float
    source: int
    spelled: tuple[str, ...] = ()
    timed: bytes | None = None  # start_ms, end_ms, confidence of each word, float64

    @property
    def words(self) -> tuple[Word, ...]:
        """Empty when the utterance is older than the last DETAILED ones."""
        if self.timed is None:
            return ()
        rows = _WORD.iter_unpack(self.timed)
        return tuple(Word(text, *row) for text, row in zip(self.spelled, rows, strict=True))

    @classmethod
    def of(cls, result: Result, source: int = 0) -> Utterance:
        """What is kept of a final result: a tenth of its memory."""
        timed = b"".join(_WORD.pack(w.start_ms, w.end_ms, w.confidence) for w in result.words)
        spelled = tuple(map(_shared, (w.text for w in result.words)))
        return cls(result.text, result.start_ms, result.end_ms, result.confidence, source, spelled, timed)


@dataclass(frozen=True)
class Transcript:
    """A snapshot: finished utterances, oldest first, and the text of the one being spoken."""

    utterances: tuple[Utterance, ...] = ()
    partial: str = ""

    @property
    def text(self) -> str:
        """One line per utterance, the unfinished one last."""
        lines = [utterance.text for utterance in self.utterances]
        return "\n".join([*lines, self.partial] if self.partial else lines)


class TranscriptLog:
    """Written by the worker, read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._utterances: list[Utterance] = []
        self._partial = ""

    def add(self, utterance: Utterance) -> None:
        """Append a finished utterance; it takes the place of the partial text."""
        with self._lock:
            self._utterances.append(utterance)
            self._partial = ""
            old = len(self._utterances) - DETAILED - 1
            if old >= 0:
                self._utterances[old] = replace(self._utterances[old], spelled=(), timed=None)

    def show(self, partial: str) -> None:
        """Replace the text of the utterance being spoken."""
        with self._lock:
            self._partial = partial

    def snapshot(self) -> Transcript:
        with self._lock:
            return Transcript(tuple(self._utterances), self._partial)


_VOCABULARY: dict[str, str] = {}


def _shared(word: str) -> str:
    """The same object for the same word: speech repeats itself."""
    if len(_VOCABULARY) < 50_000:
        return _VOCABULARY.setdefault(word, word)
    return _VOCABULARY.get(word, word)
