"""Two transcripts of the same audio: which utterances belong together, and which words differ. Qt-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from demo.window.lines import MAX_LINES, Line, Shown, line_of
from edge.runtime import Result

_TOGETHER = 0.5  # share of the shorter utterance that must overlap
MAX_ROWS = MAX_LINES // 2


def align(left: Sequence[str], right: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Indices of words that stand opposite each other with the fewest substitutions, insertions and deletions
    (Levenshtein); None where a word has no counterpart."""
    shorter = min(len(left), len(right))
    head = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    tail = next((i for i in range(shorter - head) if left[-1 - i] != right[-1 - i]), shorter - head)
    middle = _align(left[head : len(left) - tail], right[head : len(right) - tail])
    pairs: list[tuple[int | None, int | None]] = [(i, i) for i in range(head)]
    pairs += [(None if i is None else i + head, None if j is None else j + head) for i, j in middle]
    return pairs + [(len(left) - i, len(right) - i) for i in range(tail, 0, -1)]


def _align(left: Sequence[str], right: Sequence[str]) -> list[tuple[int | None, int | None]]:
    rows, columns = len(left) + 1, len(right) + 1
    cost = [[i + j if not i or not j else 0 for j in range(columns)] for i in range(rows)]
    for i in range(1, rows):
        for j in range(1, columns):
            other = left[i - 1] != right[j - 1]
            cost[i][j] = min(cost[i - 1][j - 1] + other, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(left), len(right)
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (left[i - 1] != right[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


@dataclass
class Row:
    """Utterances of both lanes about the same piece of audio; the open one is still being spoken."""

    finals: tuple[list[Result], list[Result]] = field(default_factory=lambda: ([], []))
    open: list[Result | None] = field(default_factory=lambda: [None, None])
    heading: str = ""
    drawn: tuple[Line, Line] | None = None  # kept of a complete row, until something is added to it
    counted: tuple[int, int] | None = None

    def results(self, lane: int) -> list[Result]:
        opened = self.open[lane]
        return self.finals[lane] if opened is None else [*self.finals[lane], opened]

    @property
    def spoken(self) -> bool:
        """Whether somebody still speaks."""
        return any(result is not None for result in self.open)

    @property
    def empty(self) -> bool:
        return not self.heading and not self.results(0) and not self.results(1)

    def overlap(self, result: Result) -> float:
        """Share of ``result``, or of what is here when that is shorter, that both cover."""
        here = self.results(0) + self.results(1)
        if not here:
            return 0.0
        start, end = min(r.start_ms for r in here), max(r.end_ms for r in here)
        common = min(end, result.end_ms) - max(start, result.start_ms)
        return common / max(1.0, min(end - start, result.end_ms - result.start_ms))


class Comparison:
    """Pairs utterances by time and marks the words that differ."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._gone = (0, 0)  # words and differing words of rows no longer kept

    def clear(self) -> None:
        self.rows.clear()
        self._gone = (0, 0)

    def heading(self, text: str) -> None:
        """Times start anew: nothing before this line is paired with what comes."""
        for lane in (0, 1):
            self._close(lane)
        if self.rows and self.rows[-1].heading:
            self.rows.pop()
        self.rows.append(Row(heading=text))

    def take(self, lane: int, result: Result) -> None:
        """A partial or final result of lane 0 or 1; an empty one takes the lane's partial away."""
        self._close(lane)
        if not result.text:
            return
        row = self._row(result)
        if result.is_final:
            row.finals[lane].append(result)
        else:
            row.open[lane] = result
        row.drawn = row.counted = None
        while len(self.rows) > MAX_ROWS:
            words, differing = _count(self.rows.pop(0))
            self._gone = (self._gone[0] + words, self._gone[1] + differing)

    def lines(self) -> tuple[list[Line], list[Line]]:
        """Left and right, as many lines on both sides."""
        pairs = []
        for i, row in enumerate(self.rows):
            pair = row.drawn
            if pair is None:
                pair = _draw(row)
                if self._complete(i):
                    pair = row.drawn = mark(*pair)
            pairs.append(pair)
        return [left for left, _ in pairs], [right for _, right in pairs]

    def count(self) -> tuple[int, int]:
        """Words of the longer transcript, and how many differ: substitutions, insertions and deletions in all
        utterances that both lanes have finished."""
        words, differing = self._gone
        for i, row in enumerate(self.rows):
            if self._complete(i):
                more = _count(row)
                words, differing = words + more[0], differing + more[1]
        return words, differing

    def _close(self, lane: int) -> None:
        for row in self.rows:
            if row.open[lane] is not None:
                row.open[lane] = None
                row.drawn = row.counted = None
        self.rows = [row for row in self.rows if not row.empty]

    def _row(self, result: Result) -> Row:
        here = len(self.rows)
        for i in range(len(self.rows) - 1, -1, -1):
            row = self.rows[i]
            if row.heading:
                break
            if row.overlap(result) >= _TOGETHER:
                return row
            if min(r.start_ms for r in row.results(0) + row.results(1)) > result.start_ms:
                here = i
        self.rows.insert(here, Row())
        return self.rows[here]

    def _complete(self, index: int) -> bool:
        """Nobody speaks in it, and both lanes have finished it or are past it."""
        row = self.rows[index]
        if row.heading or row.spoken:
            return False
        return all(any(later.finals[lane] for later in self.rows[index:]) for lane in (0, 1))


def _draw(row: Row) -> tuple[Line, Line]:
    if row.heading:
        return Line(heading=row.heading), Line(heading=row.heading)
    return _join(row.results(0)), _join(row.results(1))


def _count(row: Row) -> tuple[int, int]:
    """Words of the longer side and differing words of what is final; kept, as every final asks again."""
    if row.counted is None:
        left, right = ([w.text for r in row.finals[lane] for w in r.words] for lane in (0, 1))
        differing = sum(i is None or j is None or left[i] != right[j] for i, j in align(left, right))
        row.counted = max(len(left), len(right)), differing
    return row.counted


def mark(left: Line, right: Line) -> tuple[Line, Line]:
    """Both lines with the words that differ marked."""
    a, b = list(left.words), list(right.words)
    for i, j in align([w.text for w in a], [w.text for w in b]):
        if i is not None and j is not None and a[i].text == b[j].text:
            continue
        if i is not None:
            a[i] = dataclasses.replace(a[i], differs=True)
        if j is not None:
            b[j] = dataclasses.replace(b[j], differs=True)
    return dataclasses.replace(left, words=tuple(a)), dataclasses.replace(right, words=tuple(b))


def _join(results: list[Result]) -> Line:
    lines = [line_of(result) for result in results]
    words: list[Shown] = [word for line in lines for word in line.words]
    stamp, joint = (lines[0].stamp, lines[0].joint) if lines else ("", " ")
    return Line(stamp, tuple(words), any(line.partial for line in lines), joint=joint)
