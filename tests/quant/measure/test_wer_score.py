"""Word error counts against hand-made alignments and jiwer, the bootstrap against closed forms."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from quant.measure.wer.score import align, bootstrap, damaged_words, difference, rate


def test_alignments_by_hand() -> None:
    substituted, deleted, inserted, same, empty, silent = align(
        ["a b c", "one two three", "one", "Nine  ten", "", ""],
        ["a x c", "one three", "one one", "nine TEN", "", "huh what"],
    )
    assert (substituted.substitutions, substituted.deletions, substituted.insertions) == (1, 0, 0)
    assert substituted.missed == (("b", "x"),) and substituted.character_errors == 1
    assert (deleted.words, deleted.deletions, deleted.errors, deleted.missed) == (3, 1, 1, (("two", ""),))
    assert (inserted.insertions, inserted.missed) == (1, (("", "one"),))
    assert (same.words, same.characters, same.errors) == (2, 8, 0)
    assert (empty.words, empty.errors) == (0, 0)
    assert (silent.words, silent.insertions, silent.missed) == (0, 2, (("", "huh"), ("", "what")))
    total = rate([substituted, deleted, inserted, same, empty, silent])
    assert (total.words, total.errors, total.utterances, total.wrong) == (9, 5, 6, 4)
    assert total.wer == pytest.approx(100 * 5 / 9)


def test_no_reference_words_is_no_division_by_zero() -> None:
    alone = rate(align(["", ""], ["a b", ""]))
    assert (alone.wer, alone.cer, alone.insertions) == (None, None, 2)
    found = difference(align(["", ""], ["a b", ""]), align(["", ""], ["", ""]), changed=1)
    assert (found.points, found.low, found.degradation, found.worse) == (None, None, None, 1)
    drawn = bootstrap(np.array([1.0, 0.0]), np.array([0.0, 1.0]))  # some draws have no word at all
    assert np.isfinite(drawn).all()


def test_sums_equal_jiwer_on_a_corpus() -> None:
    rng = np.random.default_rng(1)
    references = [" ".join(rng.choice(["a", "bb", "cc", "d"], rng.integers(1, 9))) for _ in range(50)]
    texts = [" ".join(rng.choice(["a", "bb", "cc", "d"], rng.integers(0, 9))) for _ in range(50)]
    found, whole = rate(align(references, texts)), jiwer.process_words(references, texts)
    assert found.wer == pytest.approx(100 * whole.wer)
    assert (found.substitutions, found.deletions, found.insertions) == (
        whole.substitutions,
        whole.deletions,
        whole.insertions,
    )
    assert found.cer == pytest.approx(100 * jiwer.cer(references, texts))


def test_bootstrap_of_identical_systems_is_zero() -> None:
    system = align(["a b", "c d e"], ["a x", "c d"])
    found = difference(system, system, changed=0)
    assert (found.points, found.low, found.high, found.degradation) == (0.0, 0.0, 0.0, 0.0)


def test_bootstrap_against_the_normal_distribution() -> None:
    """400 utterances of 10 words, of which every fifth has one error more and every tenth one less: the mean of the
    draws is normal with the standard deviation of the sample over sqrt(400)."""
    extra = np.zeros(400)
    extra[::5], extra[1::10] = 1, -1
    words = np.full(400, 10.0)
    drawn = 100 * bootstrap(extra, words)
    mean, deviation = 10 * extra.mean(), 10 * extra.std() / 20
    assert drawn.mean() == pytest.approx(mean, abs=0.01)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (low, high) == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), abs=0.03)
    assert np.array_equal(drawn, 100 * bootstrap(extra, words)), "the seed is fixed"
    # Utterances of other lengths weigh by their words: two of them, drawn with replacement, have three outcomes.
    few = bootstrap(np.array([1.0, 0.0]), np.array([1.0, 3.0]))
    values, counts = np.unique(few, return_counts=True)
    assert values.tolist() == [0.0, 0.25, 1.0]
    assert counts / len(few) == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_damaged_words_by_rise() -> None:
    references = ["one two", "two three", "four"]
    before = align(references, ["one two", "two tree", "four"])
    after = align(references, ["one too", "to tree", "four four"])
    two, four = damaged_words(after, before, references)  # three is wrong in both: no rise
    assert (two.word, two.spoken, two.bundle, two.baseline, two.became) == ("two", 2, 2, 0, {"too": 1, "to": 1})
    assert (four.word, four.bundle, four.inserted, four.became) == ("four", 1, 1, {})
    assert [w.word for w in damaged_words(after, None, references)] == ["two", "four", "three"]
