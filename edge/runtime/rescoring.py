"""Attention rescoring of an n-best list, as WeNet's ``attention_rescoring``
(``wenet/models/transformer/search.py``; U2++, arXiv 2106.05642)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.runtime.search import CtcHypothesis

Decoder = Callable[
    [NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]
]
"""(hyps (N, U), hyps_lens (N,), encoder_out (T, dim)) -> log-probabilities (N, U, V), both directions."""

_MAX_FLOATS = 1_000_000  # of one decoder tensor (4 MB); more hypotheses go in parts, so that memory does not grow
_HEADS = 8  # assumed for the attention of a decoder over the utterance, the other large tensor


@dataclass(frozen=True)
class Rescored:
    """One hypothesis with its decoder scores; natural logarithms."""

    hypothesis: CtcHypothesis
    score: float  # attention_score + ctc_weight * CTC score
    attention_score: float  # (1 - reverse_weight) * left-to-right + reverse_weight * right-to-left, with eos
    confidence: float  # exp(attention_score / (tokens + 1))
    token_confidences: tuple[float, ...]  # probability of each token, the mean of both directions if both are used


def attention_rescoring(
    nbest: Sequence[CtcHypothesis],
    decoder: Decoder,
    encoder_out: NDArray[np.float32],
    *,
    sos: int,
    eos: int,
    vocabulary: int,
    ctc_weight: float = 0.5,
    reverse_weight: float = 0.0,
) -> list[Rescored]:
    """Order ``nbest`` by attention score plus weighted CTC score, best first; equal scores keep CTC's order.

    Args:
        nbest: hypotheses of the prefix beam search; empty ones are scored by the probability of eos at once.
        decoder: both attention decoders (a backend's ``rescore``).
        encoder_out: (T, dim) of the whole utterance, T > 0.
        sos, eos, vocabulary: special ids and the number of tokens.
        ctc_weight: weight of the CTC score; the attention score has weight 1.
        reverse_weight: share of the right-to-left decoder, 0 when the model has none.
    """
    rescored: list[Rescored] = []
    longest = max((len(hyp.tokens) for hyp in nbest), default=0) + 1
    batch = max(1, _MAX_FLOATS // (longest * max(vocabulary, _HEADS * len(encoder_out))))
    for start in range(0, len(nbest), batch):
        part = nbest[start : start + batch]
        hyps, lens = pad_hypotheses([hyp.tokens for hyp in part], sos, eos)
        score, r_score = decoder(hyps, lens, encoder_out)
        for row, hyp in enumerate(part):
            forward = _token_scores(score[row], hyp.tokens, eos)
            total, confidences = float(forward.sum()), np.exp(forward[:-1])
            if reverse_weight > 0.0:
                backward = _token_scores(r_score[row], hyp.tokens[::-1], eos)
                total = (1.0 - reverse_weight) * total + reverse_weight * float(backward.sum())
                confidences = (confidences + np.exp(backward[:-1][::-1])) / 2.0
            rescored.append(
                Rescored(
                    hypothesis=hyp,
                    score=total + ctc_weight * hyp.score,
                    attention_score=total,
                    confidence=math.exp(total / (len(hyp.tokens) + 1)),
                    token_confidences=tuple(confidences.tolist()),
                )
            )
    return sorted(rescored, key=lambda item: item.score, reverse=True)


def pad_hypotheses(
    hypotheses: Sequence[Sequence[int]], sos: int, eos: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decoder inputs: sos first, padded with eos, (N, U) int64, and lengths with sos, (N,) int64."""
    lens = np.array([len(tokens) + 1 for tokens in hypotheses], np.int64)
    hyps = np.full((len(hypotheses), int(lens.max(initial=1))), eos, np.int64)
    hyps[:, 0] = sos
    for row, tokens in enumerate(hypotheses):
        hyps[row, 1 : len(tokens) + 1] = tokens
    return hyps, lens


def _token_scores(log_probs: NDArray[np.float32], tokens: Sequence[int], eos: int) -> NDArray[np.float64]:
    """Log-probability of each token and of the closing eos, (len(tokens) + 1,); ``log_probs`` is (U, V)."""
    ids = [*tokens, eos]
    return log_probs[np.arange(len(ids)), ids].astype(np.float64)
