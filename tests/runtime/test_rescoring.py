from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_helpers import MODELS, recognizer, reference

from edge.runtime.rescoring import attention_rescoring, pad_hypotheses
from edge.runtime.search import CtcHypothesis, CtcPrefixBeamSearch

SOS, EOS, V = 2, 2, 5


def hypothesis(tokens: tuple[int, ...], score: float = 0.0) -> CtcHypothesis:
    return CtcHypothesis(tokens, tuple(range(len(tokens))), (1.0,) * len(tokens), score, score)


class TableDecoder:
    """Log-probabilities from a table of (V, V): of each token given the one before it, in either direction."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(0, 1, (2, V, V))
        self.tables = (values - np.log(np.exp(values).sum(-1, keepdims=True))).astype(np.float32)
        self.calls: list[tuple[int, ...]] = []

    def __call__(
        self, hyps: NDArray[np.int64], lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.calls.append(hyps.shape)
        reverse = np.full_like(hyps, EOS)
        for row, length in enumerate(lens):
            reverse[row, :length] = [SOS, *hyps[row, 1:length][::-1]]
        return self.tables[0][hyps], self.tables[1][reverse]

    def expected(self, tokens: tuple[int, ...], reverse_weight: float) -> float:
        def chain(table: NDArray[np.float32], sequence: tuple[int, ...]) -> float:
            return float(sum(table[a, b] for a, b in zip((SOS, *sequence), (*sequence, EOS))))

        left, right = chain(self.tables[0], tokens), chain(self.tables[1], tokens[::-1])
        return (1 - reverse_weight) * left + reverse_weight * right


NBEST = [hypothesis((3, 4, 1), -1.0), hypothesis((3,), -1.5), hypothesis((), -2.0), hypothesis((4, 4, 4, 3, 1), -3.0)]
OUT = np.zeros((7, 4), np.float32)


@pytest.mark.parametrize("reverse_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ctc_weight", [0.0, 0.5])
def test_scores_by_hand(reverse_weight: float, ctc_weight: float) -> None:
    decoder = TableDecoder()
    found = attention_rescoring(
        NBEST, decoder, OUT, sos=SOS, eos=EOS, vocabulary=V, ctc_weight=ctc_weight, reverse_weight=reverse_weight
    )
    expected = {h.tokens: (decoder.expected(h.tokens, reverse_weight), h.score * ctc_weight) for h in NBEST}
    assert {r.hypothesis.tokens for r in found} == set(expected)
    for r in found:
        attention, ctc = expected[r.hypothesis.tokens]
        assert r.attention_score == pytest.approx(attention, abs=1e-6)
        assert r.score == pytest.approx(attention + ctc, abs=1e-6)
        assert r.confidence == pytest.approx(math.exp(attention / (len(r.hypothesis.tokens) + 1)))
        assert len(r.token_confidences) == len(r.hypothesis.tokens)
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)


def test_token_confidence_is_the_mean_of_both_directions() -> None:
    decoder = TableDecoder()
    (found,) = attention_rescoring([NBEST[0]], decoder, OUT, sos=SOS, eos=EOS, vocabulary=V, reverse_weight=0.3)
    left, right = np.exp(decoder.tables.astype(np.float64))
    expected = [(left[2, 3] + right[4, 3]) / 2, (left[3, 4] + right[1, 4]) / 2, (left[4, 1] + right[2, 1]) / 2]
    assert found.token_confidences == pytest.approx(expected)


def test_only_empty_hypotheses_and_none() -> None:
    decoder = TableDecoder()
    (found,) = attention_rescoring([hypothesis(())], decoder, OUT, sos=SOS, eos=EOS, vocabulary=V, reverse_weight=0.3)
    assert found.attention_score == pytest.approx(decoder.expected((), 0.3)) and found.token_confidences == ()
    assert attention_rescoring([], decoder, OUT, sos=SOS, eos=EOS, vocabulary=V) == []


def test_equal_scores_keep_the_order_of_ctc() -> None:
    same = [hypothesis((3,), -1.0), hypothesis((3,), -1.0)]
    found = attention_rescoring(same, TableDecoder(), OUT, sos=SOS, eos=EOS, vocabulary=V)
    assert found[0].hypothesis is same[0]


def test_long_hypotheses_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attention_rescoring(NBEST, TableDecoder(), OUT, sos=SOS, eos=EOS, vocabulary=V, reverse_weight=0.3)
    # The longest has 5 tokens and sos; 8 heads look at 7 frames each.
    monkeypatch.setattr("edge.runtime.rescoring._MAX_FLOATS", 2 * 6 * 8 * len(OUT))
    decoder = TableDecoder()
    parts = attention_rescoring(NBEST, decoder, OUT, sos=SOS, eos=EOS, vocabulary=V, reverse_weight=0.3)
    assert parts == whole and decoder.calls == [(2, 4), (2, 6)]


def test_padding() -> None:
    hyps, lens = pad_hypotheses([(3, 4), (), (1,)], sos=7, eos=9)
    assert hyps.tolist() == [[7, 3, 4], [7, 9, 9], [7, 1, 9]] and lens.tolist() == [3, 1, 2]
    assert hyps.dtype == lens.dtype == np.int64


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["full", "stream_16_4", "stream_16_-1"])
def test_rescoring_is_wenets(name: str, mode: str) -> None:
    """On WeNet's own encoder output and CTC scores, with the exported decoders."""
    arrays, decoded = reference(name)
    expected = decoded[mode]["attention_rescoring"]
    search = CtcPrefixBeamSearch(beam=10, blank=0)
    search.advance(arrays[f"{mode}_ctc_logp"])
    found = attention_rescoring(
        search.nbest(),
        recognizer(name).backend.rescore,
        arrays[f"{mode}_encoder_out"],
        sos=2,
        eos=2,
        vocabulary=31,
        ctc_weight=0.5,
        reverse_weight=0.3,
    )[0]
    assert list(found.hypothesis.tokens) == expected["tokens"]
    assert found.score == pytest.approx(expected["score"], abs=1e-3)
    assert found.confidence == pytest.approx(expected["confidence"], abs=1e-5)
    assert found.token_confidences == pytest.approx(expected["tokens_confidence"], abs=1e-5)
