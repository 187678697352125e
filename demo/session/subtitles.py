"""Transcripts as files: TXT to read, SRT to play beside the audio, JSON for programs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.session.transcript import Utterance
from edge.system.files import write_text

WIDTH, LINES = 42, 2  # characters per line and lines per cue, as broadcasters have them


@dataclass(frozen=True)
class Cue:
    """Text on screen from ``start_ms`` to ``end_ms``."""

    start_ms: float
    end_ms: float
    lines: tuple[str, ...]


def txt(utterances: Iterable[Utterance], from_ms: float = 0.0) -> str:
    """One line per utterance with the time its first word began; times count from ``from_ms``."""
    lines = []
    for utterance in utterances:
        words = utterance.words
        start = words[0].start_ms if words else utterance.start_ms
        lines.append(f"[{_clock(start - from_ms, '.')[:-2]}] {utterance.text}\n")
    return "".join(lines)


def srt(utterances: Iterable[Utterance], from_ms: float = 0.0) -> str:
    """SubRip: a cue per utterance, several where it needs more than LINES lines of WIDTH characters."""
    blocks = []
    for number, cue in enumerate(cues(utterances), start=1):
        span = f"{_clock(cue.start_ms - from_ms, ',')} --> {_clock(cue.end_ms - from_ms, ',')}"
        blocks.append("\n".join([str(number), span, *cue.lines, ""]))
    return "\n".join(blocks)


def cues(utterances: Iterable[Utterance]) -> Iterator[Cue]:
    """Cues that begin and end with their words. Without words, an utterance is cut evenly over its time."""
    for utterance in utterances:
        pieces = list(_pieces(utterance))
        while pieces:
            lines, taken = _fill([text for text, _, _ in pieces])
            yield Cue(pieces[0][1], max(p[2] for p in pieces[:taken]), tuple(lines))
            pieces = pieces[taken:]


def as_dict(utterance: Utterance, from_ms: float = 0.0) -> dict[str, Any]:
    """Plain values for ``json.dumps``, times with 0.1 ms."""
    return {
        "text": utterance.text,
        "start_ms": round(utterance.start_ms - from_ms, 1),
        "end_ms": round(utterance.end_ms - from_ms, 1),
        "confidence": round(utterance.confidence, 4),
        "words": [
            {
                "text": word.text,
                "start_ms": round(word.start_ms - from_ms, 1),
                "end_ms": round(word.end_ms - from_ms, 1),
                "confidence": round(word.confidence, 4),
            }
            for word in utterance.words
        ],
    }


def save(
    stem: Path, utterances: Sequence[Utterance], about: dict[str, Any] | None = None, from_ms: float = 0.0
) -> list[Path]:
    """Write ``stem``.txt, .srt and .json, each complete or not at all.

    Args:
        stem: path without extension; its folder must exist.
        utterances: of one source, whose times run on one clock.
        about: put before the utterances in the JSON.
        from_ms: becomes time 0.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    listed = {**(about or {}), "utterances": [as_dict(u, from_ms) for u in utterances]}
    contents = {
        ".txt": txt(utterances, from_ms),
        ".srt": srt(utterances, from_ms),
        ".json": json.dumps(listed, indent=1, ensure_ascii=False) + "\n",
    }
    written = []
    for extension, text in contents.items():
        path = stem.with_name(stem.name + extension)
        write_text(path, text, parents=False)
        written.append(path)
    return written


def _pieces(utterance: Utterance) -> Iterator[tuple[str, float, float]]:
    """(text with the space before it, start_ms, end_ms) of each word, cut where one is wider than a line."""
    words, text = utterance.words, utterance.text
    starts, at = [], 0
    for word in words:
        found = text.find(word.text, at)
        if found < 0:  # words that do not spell the text: the whole of it is one piece
            words = ()
            break
        starts.append(found)
        at = found + len(word.text)
    if words:
        cuts = [0, *starts[1:], len(text)]
        spans = [(text[a:b], w.start_ms, w.end_ms) for (a, b), w in zip(itertools.pairwise(cuts), words, strict=True)]
    else:
        spans = [(text, utterance.start_ms, utterance.end_ms)]
    for piece, start, end in spans:
        parts = _narrow(piece)
        step = (end - start) / len(parts)
        for index, part in enumerate(parts):
            yield part, start + index * step, start + (index + 1) * step


def _narrow(text: str) -> list[str]:
    """``text`` in parts no wider than a line, cut at spaces where there are some."""
    parts: list[str] = []
    while len(text.strip()) > WIDTH:
        text = text.lstrip()
        space = text.rfind(" ", 1, WIDTH + 1)
        cut = space + 1 if space > 0 else WIDTH
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


def _fill(pieces: list[str]) -> tuple[list[str], int]:
    """The first lines that ``pieces`` fill, and how many of them that took."""
    lines, line = [], ""
    for index, piece in enumerate(pieces):
        if len((line + piece).strip()) > WIDTH:
            lines.append(line.strip())
            if len(lines) == LINES:
                return lines, index
            line = ""
        line += piece
    return [*lines, line.strip()], len(pieces)


def _clock(ms: float, point: str) -> str:
    total = max(0, round(ms))
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
