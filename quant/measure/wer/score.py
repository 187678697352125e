"""Errors of one system, and the difference between two on the same recordings.

What a word is, ``quant.measure.wer.scoring`` says: with CER and MER, characters are words of their own here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray

from quant.measure.wer.scoring import Scoring

WORDS = Scoring()
RESAMPLES, SEED = 10_000, 0
_BATCH_FLOATS = 4_000_000  # of one batch of resamples (32 MB)


@dataclass(frozen=True)
class Rate:
    """Errors against a reference. ``wer`` is percent of its words, which is CER or MER when characters were the words
    (``WerReport.rate``); ``cer`` percent of its characters, spaces between words included. None when the reference has
    none, and then every recognised word is still counted as an insertion."""

    utterances: int
    wrong: int  # utterances with at least one word error
    words: int  # of the reference
    substitutions: int
    deletions: int
    insertions: int
    characters: int  # of the reference
    character_errors: int
    wer: float | None
    cer: float | None

    @property
    def errors(self) -> int:
        """Wrong words."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Difference:
    """Bundle minus baseline in points of WER (percent of the reference words); above 0 the bundle is worse.

    ``low``, ``high`` bound 95 % of a paired bootstrap over utterances; ``degradation`` is the share of resamples
    in which the bundle is worse (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", ICASSP 2004). All None when the reference has no words.
    """

    points: float | None
    low: float | None
    high: float | None
    degradation: float | None  # 0..1
    changed: int  # utterances whose text differs
    worse: int  # utterances with more word errors than the baseline's
    better: int


@dataclass(frozen=True)
class DamagedWord:
    """A word of the references, and how often it was missed (substituted or deleted) or inserted."""

    word: str
    spoken: int
    bundle: int  # errors
    baseline: int | None
    became: dict[str, int]  # what the bundle wrote instead, most often first; "" for nothing (a deletion)
    inserted: int  # of the bundle's errors: written where nothing was said


@dataclass(frozen=True)
class DamagedUtterance:
    """A recording and the texts of both systems."""

    name: str
    reference: str
    bundle: str
    baseline: str | None
    bundle_errors: int
    baseline_errors: int | None


@dataclass(frozen=True)
class Alignment:
    """Word errors of one utterance."""

    words: int
    characters: int
    substitutions: int
    deletions: int
    insertions: int
    character_errors: int
    missed: tuple[tuple[str, str], ...]  # (spoken, written); written "" for a deletion, spoken "" for an insertion

    @property
    def errors(self) -> int:
        """Wrong words."""
        return self.substitutions + self.deletions + self.insertions


def align(references: Sequence[str], texts: Sequence[str], scoring: Scoring = WORDS) -> list[Alignment]:
    """The alignment with the fewest errors of every utterance, by jiwer; both sides are normalised first."""
    return [_align(r, t, scoring) for r, t in zip(references, texts, strict=True)]


def _align(reference: str, text: str, scoring: Scoring) -> Alignment:
    spoken, written = scoring.tokens(reference), scoring.tokens(text)
    reference, text = scoring.normalise(reference), scoring.normalise(text)
    if spoken == written:
        return Alignment(len(spoken), len(reference), 0, 0, 0, 0, ())
    words = jiwer.process_words(" ".join(spoken), " ".join(written))
    characters = jiwer.process_characters(reference, text)
    missed: list[tuple[str, str]] = []
    for part in words.alignments[0]:
        before, after = spoken[part.ref_start_idx : part.ref_end_idx], written[part.hyp_start_idx : part.hyp_end_idx]
        if part.type == "substitute":
            missed += zip(before, after, strict=True)
        elif part.type == "delete":
            missed += [(word, "") for word in before]
        elif part.type == "insert":
            missed += [("", word) for word in after]
    return Alignment(
        words=len(spoken),
        characters=len(reference),
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
        missed=tuple(missed),
    )


def rate(alignments: Sequence[Alignment]) -> Rate:
    """The sum of ``alignments``."""
    words, characters = sum(a.words for a in alignments), sum(a.characters for a in alignments)
    errors, character_errors = sum(a.errors for a in alignments), sum(a.character_errors for a in alignments)
    return Rate(
        utterances=len(alignments),
        wrong=sum(a.errors > 0 for a in alignments),
        words=words,
        substitutions=sum(a.substitutions for a in alignments),
        deletions=sum(a.deletions for a in alignments),
        insertions=sum(a.insertions for a in alignments),
        characters=characters,
        character_errors=character_errors,
        wer=100.0 * errors / words if words else None,
        cer=100.0 * character_errors / characters if characters else None,
    )


def difference(
    bundle: Sequence[Alignment],
    baseline: Sequence[Alignment],
    changed: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Bundle minus baseline on the same utterances.

    Args:
        bundle, baseline: of the same references, in the same order.
        changed: utterances whose text differs.
        resamples: draws of as many utterances as there are, with replacement, the same for both systems.
        seed: of the draws, so that an interval can be repeated.
    """
    extra = np.array([b.errors - a.errors for b, a in zip(bundle, baseline, strict=True)], np.float64)
    words = np.array([b.words for b in bundle], np.float64)
    worse, better = int((extra > 0).sum()), int((extra < 0).sum())
    if not words.sum():
        return Difference(None, None, None, None, changed, worse, better)
    drawn = bootstrap(extra, words, resamples, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(
        points=100.0 * float(extra.sum() / words.sum()),
        low=100.0 * float(low),
        high=100.0 * float(high),
        degradation=float((drawn > 0).mean()),
        changed=changed,
        worse=worse,
        better=better,
    )


def bootstrap(
    errors: NDArray[np.float64], words: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """Sum of ``errors`` over sum of ``words``, both (utterances,), of ``resamples`` draws of the utterances with
    replacement; a draw without any word counts as 0."""
    count = len(errors)
    random, out = np.random.default_rng(seed), np.empty(resamples)
    batch = max(1, _BATCH_FLOATS // count)
    for start in range(0, resamples, batch):
        index = random.integers(0, count, (min(batch, resamples - start), count))
        total = words[index].sum(axis=1)
        out[start : start + len(index)] = errors[index].sum(axis=1) / np.where(total > 0, total, np.inf)
    return out


def damaged_words(
    bundle: Sequence[Alignment],
    baseline: Sequence[Alignment] | None,
    references: Sequence[str],
    count: int = 20,
    scoring: Scoring = WORDS,
) -> tuple[DamagedWord, ...]:
    """The words whose errors rise most from ``baseline`` to ``bundle``; without baseline, those most often wrong."""
    spoken = Counter(word for text in references for word in scoring.tokens(text))
    now = _by_word(bundle)
    before = _by_word(baseline) if baseline is not None else Counter()
    rise = {word: now[word] - before[word] for word in now if now[word] > before[word]}
    became: dict[str, Counter[str]] = {}
    inserted: Counter[str] = Counter()
    for said, written in (pair for alignment in bundle for pair in alignment.missed):
        if said:
            became.setdefault(said, Counter())[written] += 1
        else:
            inserted[written] += 1
    worst = sorted(rise, key=lambda word: (-rise[word], -now[word], word))[:count]
    return tuple(
        DamagedWord(
            word=word,
            spoken=spoken[word],
            bundle=now[word],
            baseline=None if baseline is None else before[word],
            became=dict(became.get(word, Counter()).most_common()),
            inserted=inserted[word],
        )
        for word in worst
    )


def _by_word(alignments: Sequence[Alignment]) -> Counter[str]:
    """Errors by spoken word; an insertion counts for the word that was inserted."""
    return Counter(said or written for alignment in alignments for said, written in alignment.missed)
