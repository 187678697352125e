"""CTC search: greedy, and WeNet's prefix beam search made incremental.

The prefix beam search follows ``ctc_prefix_beam_search`` of ``wenet/models/transformer/search.py`` (and
``runtime/core/decoder/ctc_prefix_beam_search.cc``) to the order of ties: blank-ending and other mass per prefix,
a Viterbi score beside them for the token times. What differs is the cost. Prefixes are nodes of a trie and token
times are linked lists, so a frame costs the same after ten minutes as after one second, and candidates that
provably cannot enter the beam are not expanded (see ``_step``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MINUS_INF = -math.inf
_SLACK = 1e-9  # covers the rounding of sums of log-probabilities

_Times = tuple["_Times | None", int, float]  # (times before, frame, log-probability of the token)


@dataclass(frozen=True)
class CtcHypothesis:
    """Tokens with the frame each is emitted at (frames of the utterance) and its probability there, 0..1."""

    tokens: tuple[int, ...]
    times: tuple[int, ...]
    confidences: tuple[float, ...]
    score: float  # natural-log probability of all alignments found
    viterbi_score: float  # natural-log probability of the best alignment


class _Prefix:
    """A node of the prefix trie. ``children`` counts nodes attached below it; ``active`` = in the beam."""

    __slots__ = ("active", "children", "parent", "token")

    def __init__(self, token: int, parent: _Prefix | None) -> None:
        self.token, self.parent = token, parent
        self.children = 0
        self.active = False


class _Score:
    """Log-probabilities of a prefix: ending in blank (s), not in blank (ns), and the same along Viterbi paths (v_)."""

    __slots__ = ("best", "ns", "s", "times_ns", "times_s", "total", "v_ns", "v_s")

    def __init__(self) -> None:
        self.s = self.ns = self.v_s = self.v_ns = self.best = self.total = _MINUS_INF
        self.times_s: _Times | None = None
        self.times_ns: _Times | None = None

    def viterbi(self) -> tuple[float, _Times | None]:
        return (self.v_s, self.times_s) if self.v_s > self.v_ns else (self.v_ns, self.times_ns)


_Beam = list[tuple[_Prefix, _Score]]


class CtcPrefixBeamSearch:
    """Incremental CTC prefix beam search over one utterance."""

    def __init__(self, beam: int, blank: int) -> None:
        if beam < 1:
            raise ValueError(f"beam: expected 1 or more, found {beam}")
        self.beam, self.blank = beam, blank
        self.reset()

    def reset(self) -> None:
        """Start a new utterance."""
        root, score = _Prefix(-1, None), _Score()
        score.s = score.v_s = score.v_ns = score.total = 0.0
        root.active = True
        self.frames = 0
        self._beam: _Beam = [(root, score)]
        self._children: dict[tuple[_Prefix, int], _Prefix] = {}

    @property
    def nodes(self) -> int:
        """Trie nodes held: those on the way from the root to a prefix of the beam."""
        return len(self._children) + 1

    def advance(self, log_probs: NDArray[np.float32]) -> None:
        """Search on over CTC log-probabilities (frames, vocabulary)."""
        if not len(log_probs):
            return
        index = _top(log_probs, self.beam)
        value = np.take_along_axis(log_probs, index, axis=1)
        for tokens, logps in zip(index.tolist(), value.tolist(), strict=True):
            self._step(tokens, logps)
            self.frames += 1

    @property
    def best(self) -> CtcHypothesis:
        """The best hypothesis so far."""
        return _hypothesis(*self._beam[0])

    def decoded_something(self) -> bool:
        """Whether the best hypothesis has tokens."""
        return self._beam[0][0].parent is not None

    def nbest(self) -> list[CtcHypothesis]:
        """Up to ``beam`` hypotheses, best first."""
        return [_hypothesis(node, score) for node, score in self._beam]

    def _step(self, tokens: list[int], logps: list[float]) -> None:
        """One frame: ``tokens`` by falling log-probability ``logps``."""
        beam, children, frame = self._beam, self._children, self.frames
        # Every prefix survives a blank with total + logp(blank). When the beam is full, this bounds the worst
        # total of the next beam from below. A prefix that is not in the beam has one source only, its parent, so
        # it need not be made when parent's total + logp(token) is below that bound.
        bound = _MINUS_INF
        if len(beam) == self.beam and self.blank in tokens:
            bound = beam[-1][1].total + logps[tokens.index(self.blank)]
        reached: dict[_Prefix, _Score] = {}
        special = _special(beam) if bound > _MINUS_INF else {}
        for token, logp in zip(tokens, logps, strict=True):
            if token == self.blank:
                for node, now in beam:
                    after = reached.get(node)
                    if after is None:
                        after = reached[node] = _Score()
                    viterbi, times = now.viterbi()
                    after.s = _log_add(after.s, now.total + logp)
                    after.v_s, after.times_s = viterbi + logp, times
                continue
            for node, now in _candidates(beam, bound - logp - _SLACK, special.get(token, ())):
                if node.token == token:
                    # The token goes on: *u -> *u.
                    after = reached.get(node)
                    if after is None:
                        after = reached[node] = _Score()
                    after.ns = _log_add(after.ns, now.ns + logp)
                    if after.v_ns < now.v_ns + logp:
                        after.v_ns = now.v_ns + logp
                        if after.best < logp:
                            after.best = logp
                            assert now.times_ns is not None
                            before, _, peak = now.times_ns
                            after.times_ns = (before, frame, max(peak, logp))
                    # The token again, after a blank: *u_u -> *uu.
                    mass, viterbi, times = now.s, now.v_s, now.times_s
                else:
                    mass, (viterbi, times) = now.total, now.viterbi()
                child = children.get((node, token))
                if child is None:
                    child = _Prefix(token, node)
                after = reached.get(child)
                if after is None:
                    after = reached[child] = _Score()
                after.ns = _log_add(after.ns, mass + logp)
                if after.v_ns < viterbi + logp:
                    after.v_ns, after.best = viterbi + logp, logp
                    after.times_ns = (times, frame, logp)
        for after in reached.values():
            after.total = _log_add(after.s, after.ns)
        ranked = sorted(reached.items(), key=lambda item: item[1].total, reverse=True)
        self._replace(ranked[: self.beam])

    def _replace(self, beam: _Beam) -> None:
        """Make ``beam`` the current one; nodes that no longer lead to it leave the trie."""
        old, self._beam = self._beam, beam
        for node, _ in old:
            node.active = False
        for node, _ in beam:
            node.active = True
            if node.parent is not None and (node.parent, node.token) not in self._children:
                self._children[node.parent, node.token] = node
                node.parent.children += 1
        for node, _ in old:
            while not node.active and not node.children and node.parent is not None:
                if self._children.pop((node.parent, node.token), None) is None:
                    break
                node.parent.children -= 1
                node = node.parent


def _special(beam: _Beam) -> dict[int, list[int]]:
    """token -> positions in the beam where it must not be skipped, whatever its probability: it repeats the last
    token of that prefix, or leads from it to another prefix of the beam."""
    position = {node: index for index, (node, _) in enumerate(beam)}
    found: dict[int, list[int]] = {}
    for index, (node, _) in enumerate(beam):
        found.setdefault(node.token, []).append(index)
        if node.parent in position:
            found.setdefault(node.token, []).append(position[node.parent])
    return found


def _candidates(beam: _Beam, least: float, special: list[int] | tuple[()]) -> Iterator[tuple[_Prefix, _Score]]:
    """Entries of ``beam`` (by falling total) with a total of ``least`` or more, then those at ``special``."""
    count = 0
    for entry in beam:
        if entry[1].total < least:
            break
        count += 1
        yield entry
    if special:
        for index in sorted(set(special)):
            if index >= count:
                yield beam[index]


def ctc_greedy(log_probs: NDArray[np.float32], blank: int) -> CtcHypothesis:
    """Best token per frame, repeats merged, blanks dropped (WeNet's ``ctc_greedy_search``).

    ``log_probs`` is (frames, vocabulary). A token's time is the frame of its run where it is most probable.
    """
    if not len(log_probs):
        return CtcHypothesis((), (), (), 0.0, 0.0)
    path = log_probs.argmax(axis=1)
    best = np.take_along_axis(log_probs, path[:, None], axis=1)[:, 0]
    tokens: list[int] = []
    times: list[int] = []
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(path)), strict=True):
        if path[start] != blank:
            tokens.append(int(path[start]))
            times.append(int(start + best[start:end].argmax()))
    confidences = tuple(math.exp(best[time]) for time in times)
    score = float(best.sum(dtype=np.float64))
    return CtcHypothesis(tuple(tokens), tuple(times), confidences, score, score)


def _top(log_probs: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices (frames, count) of the largest values of each row, falling; equal values by rising index."""
    count = min(count, log_probs.shape[1])
    index = np.argpartition(-log_probs, count - 1, axis=1)[:, :count]
    index.sort(axis=1)
    order = np.argsort(-np.take_along_axis(log_probs, index, axis=1), axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1)


def _log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    if b == _MINUS_INF:
        return a
    return a + math.log1p(math.exp(b - a))


def _hypothesis(node: _Prefix, score: _Score) -> CtcHypothesis:
    tokens: list[int] = []
    while node.parent is not None:
        tokens.append(node.token)
        node = node.parent
    viterbi, chain = score.viterbi()
    times: list[int] = []
    logps: list[float] = []
    while chain is not None:
        chain, frame, logp = chain
        times.append(frame)
        logps.append(logp)
    confidences = tuple(math.exp(min(logp, 0.0)) for logp in reversed(logps))
    return CtcHypothesis(tuple(reversed(tokens)), tuple(reversed(times)), confidences, score.total, viterbi)
