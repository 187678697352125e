from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_helpers import MODELS, reference

from edge.runtime.search import CtcPrefixBeamSearch, ctc_greedy

MODES = ("full", "stream_16_4", "stream_16_-1")


def log_softmax(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)), np.float32)


def speech_like(frames: int, vocabulary: int, seed: int = 0) -> NDArray[np.float32]:
    """Mostly blank, a confident token every fourth frame, some doubts."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (frames, vocabulary))
    values[:, 0] += 12
    peaks = np.arange(0, frames, 4)
    values[peaks, rng.integers(1, vocabulary, len(peaks))] += rng.uniform(10, 16, len(peaks))
    return log_softmax(values)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 7, 16, 1000])
def test_prefix_beam_search_is_wenets(name: str, mode: str, size: int) -> None:
    arrays, decoded = reference(name)
    log_probs, expected = arrays[f"{mode}_ctc_logp"], decoded[mode]["ctc_prefix_beam_search"]
    search = CtcPrefixBeamSearch(beam=10, blank=0)
    for start in range(0, len(log_probs), size):
        search.advance(log_probs[start : start + size])
    found = search.nbest()
    assert [list(h.tokens) for h in found] == expected["nbest"]
    assert [h.score for h in found] == pytest.approx(expected["nbest_scores"], abs=1e-3)
    assert list(found[0].times) == expected["times"]
    assert list(search.best.tokens) == expected["tokens"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", MODES)
def test_greedy_is_wenets(name: str, mode: str) -> None:
    arrays, decoded = reference(name)
    found = ctc_greedy(arrays[f"{mode}_ctc_logp"], blank=0)
    assert list(found.tokens) == decoded[mode]["ctc_greedy_search"]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_sums_over_all_alignments(seed: int) -> None:
    """With a beam wider than the number of prefixes the search is exact: compare with every path, enumerated."""
    frames, vocabulary = 5, 3
    log_probs = log_softmax(np.random.default_rng(seed).normal(0, 2, (frames, vocabulary)))
    total: dict[tuple[int, ...], float] = defaultdict(float)
    best: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(vocabulary), repeat=frames):
        probability = math.exp(sum(float(log_probs[t, u]) for t, u in enumerate(path)))
        total[collapse(path)] += probability
        best[collapse(path)] = max(best[collapse(path)], probability)
    search = CtcPrefixBeamSearch(beam=1000, blank=0)
    search.advance(log_probs)
    found = [h for h in search.nbest() if h.score > -math.inf]
    assert {h.tokens for h in found} == set(total)
    for h in found:
        assert h.score == pytest.approx(math.log(total[h.tokens]), abs=1e-6)
        assert h.viterbi_score == pytest.approx(math.log(best[h.tokens]), abs=1e-6)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def textbook(log_probs: NDArray[np.float32], beam: int) -> list[tuple[tuple[int, ...], float]]:
    """Prefix beam search (Hannun et al., arXiv 1408.2873, algorithm 1) in probabilities, nothing skipped or shared;
    only the ``beam`` best tokens of a frame extend a prefix, as in WeNet."""
    hyps: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}  # ending in blank, not in blank
    for row in np.exp(log_probs.astype(np.float64)):
        new: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for token in np.argsort(-row, kind="stable")[:beam].tolist():
            for prefix, (blank, other) in hyps.items():
                if token == 0:
                    new[prefix][0] += (blank + other) * row[0]
                elif prefix and token == prefix[-1]:
                    new[prefix][1] += other * row[token]
                    new[*prefix, token][1] += blank * row[token]
                else:
                    new[*prefix, token][1] += (blank + other) * row[token]
        best = sorted(new.items(), key=lambda item: -sum(item[1]))[:beam]
        hyps = {prefix: (blank, other) for prefix, (blank, other) in best}
    return [(prefix, math.log(sum(masses))) for prefix, masses in hyps.items()]


@pytest.mark.parametrize("beam", [1, 3, 10])
@pytest.mark.parametrize("sharpness", [0.3, 1.0])
def test_skipping_hopeless_candidates_changes_nothing(beam: int, sharpness: float) -> None:
    for seed in range(4):
        log_probs = log_softmax(sharpness * speech_like(60, 30, seed).astype(np.float64))
        search = CtcPrefixBeamSearch(beam, 0)
        search.advance(log_probs)
        expected = textbook(log_probs, beam)
        assert [h.tokens for h in search.nbest()] == [prefix for prefix, _ in expected]
        assert [h.score for h in search.nbest()] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_times_and_confidences_point_at_the_tokens() -> None:
    """One sure token per fourth frame: emitted there, with that probability; repeats of a token need the blank."""
    tokens = [3, 3, 1, 2, 2, 2]
    values = np.full((24, 5), -8.0)
    values[:, 0] = 4.0
    for place, token in enumerate(tokens):
        values[4 * place + 1, token] = 9.0
    log_probs = log_softmax(values)
    for found in (ctc_greedy(log_probs, 0), _search(log_probs).best):
        assert list(found.tokens) == tokens
        assert list(found.times) == [4 * place + 1 for place in range(6)]
        assert found.confidences == pytest.approx([math.exp(log_probs[t, u]) for t, u in zip(found.times, tokens)])


def test_a_long_token_is_reported_at_its_last_frame_with_its_peak() -> None:
    values = np.full((6, 3), -1.0)
    values[[0, 1, 5], 0] = 5.0
    values[[2, 3, 4], 1] = [1.0, 5.0, 1.5]
    log_probs = log_softmax(values)
    found = _search(log_probs).best
    assert found.tokens == (1,) and found.times == (4,), "WeNet moves the time while the token goes on"
    assert found.confidences[0] == pytest.approx(math.exp(log_probs[3, 1]))


def test_empty_input_reset_and_wide_beams() -> None:
    search = CtcPrefixBeamSearch(10, 0)
    assert search.best.tokens == () and search.best.score == 0.0 and not search.decoded_something()
    search.advance(np.zeros((0, 5), np.float32))
    search.advance(speech_like(40, 5))  # a beam wider than the vocabulary
    assert search.decoded_something()
    before = search.nbest()
    search.reset()
    assert search.best.tokens == () and search.nodes == 1 and search.frames == 0
    search.advance(speech_like(40, 5))
    assert search.nbest() == before
    assert ctc_greedy(np.zeros((0, 5), np.float32), 0).tokens == ()
    with pytest.raises(ValueError, match="beam"):
        CtcPrefixBeamSearch(0, 0)


def test_blank_need_not_be_zero() -> None:
    log_probs = speech_like(80, 20)
    moved = np.roll(log_probs, -1, axis=1)  # token k -> k - 1, blank -> 19
    first, second = _search(log_probs), CtcPrefixBeamSearch(10, 19)
    second.advance(moved)
    assert [h.tokens for h in second.nbest()] == [tuple(u - 1 for u in h.tokens) for h in first.nbest()]
    assert [h.score for h in second.nbest()] == [h.score for h in first.nbest()]


def test_cost_and_memory_do_not_grow_with_the_utterance() -> None:
    log_probs = speech_like(16, 60)
    search = CtcPrefixBeamSearch(10, 0)
    seconds = []
    for _ in range(250):  # 4000 frames: 160 s
        began = time.perf_counter()
        search.advance(log_probs)
        seconds.append(time.perf_counter() - began)
    early, late = np.median(seconds[5:55]), np.median(seconds[-50:])
    assert late < 3 * early, "copying prefixes would make this 20 times"
    length = len(search.best.tokens)
    assert length > 400
    # Prefixes of the beam share their past or differ from each other since some frame; nothing else is held.
    held = {h.tokens[:n] for h in search.nbest() for n in range(len(h.tokens) + 1)}
    assert search.nodes == len(held)
    search.reset()  # frees chains of thousands of nodes
    assert search.nodes == 1


def _search(log_probs: NDArray[np.float32]) -> CtcPrefixBeamSearch:
    search = CtcPrefixBeamSearch(10, 0)
    search.advance(log_probs)
    return search
