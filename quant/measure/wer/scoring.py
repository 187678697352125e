"""What counts as one error: words, characters, or both as the language is written.

Mandarin and Japanese are written without spaces, so their characters are the tokens and spaces between them mean
nothing; Latin words among them stay words. That is the mixed error rate (MER) of code-switching corpora; on text
without Latin words it is the character error rate that AISHELL and WenetSpeech report.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edge.runtime.errors import EdgeError

RateName = Literal["wer", "cer", "mer"]
Punctuation = Literal["keep", "drop"]

# Kana, Han with its extensions and compatibility forms, and the marks written among them; Hangul has spaces.
_CJK = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CJK_MARKS = "\u3000-\u3004\u3008-\u303f\uff00-\uffef"
_ONE = re.compile(f"[{_CJK}]")
_SPLIT = re.compile(f"([{_CJK}{_CJK_MARKS}])")
_GAP = re.compile(f"(?<=[{_CJK}{_CJK_MARKS}]) +| +(?=[{_CJK}{_CJK_MARKS}])")
# Thai, Lao, Myanmar, Khmer, Tibetan: no spaces between words either, and a letter may be several characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'"})


class ScoringError(EdgeError, ValueError):
    """A rate that is not known."""


@dataclass(frozen=True)
class Scoring:
    """How two texts are compared.

    ``rate``: ``wer`` counts words between spaces; ``mer`` CJK characters one by one and all else by words; ``cer``
    every character but spaces. ``punctuation``: ``drop`` takes it out of both texts, apostrophes inside words not.
    """

    rate: RateName = "wer"
    punctuation: Punctuation = "keep"

    def __post_init__(self) -> None:
        if self.rate not in ("wer", "cer", "mer"):
            raise ScoringError(f"rate: expected wer, cer or mer, found {self.rate!r}")
        if self.punctuation not in ("keep", "drop"):
            raise ScoringError(f"punctuation: expected keep or drop, found {self.punctuation!r}")

    @property
    def title(self) -> str:
        """WER, CER or MER."""
        return self.rate.upper()

    @property
    def unit(self) -> str:
        """Plural, for people."""
        return {"wer": "words", "cer": "characters", "mer": "words and CJK characters"}[self.rate]

    @property
    def description(self) -> str:
        """The whole normalisation, for people."""
        split = {
            "wer": "words end at spaces",
            "cer": "every character but spaces is a token",
            "mer": "CJK characters are tokens of their own, spaces beside them do not count, other words end at spaces",
        }[self.rate]
        marks = "punctuation is dropped" if self.punctuation == "drop" else "punctuation stays"
        return f"lower case, full-width forms as ASCII, runs of white space as one space, {marks}; {split}"

    def normalise(self, text: str) -> str:
        """``text`` as it is compared and shown: see :attr:`description`."""
        text = text.translate(_NARROW).translate(_APOSTROPHES).lower()
        if self.punctuation == "drop":
            text = _without_punctuation(text)
        text = " ".join(text.split())
        if self.rate == "wer":
            return text
        return _GAP.sub("", text)

    def tokens(self, text: str) -> list[str]:
        """What is counted, in order."""
        text = self.normalise(text)
        if self.rate == "cer":
            return [character for character in text if character != " "]
        if self.rate == "mer":
            text = _SPLIT.sub(r" \1 ", text)
        return text.split()


def _without_punctuation(text: str) -> str:
    kept = []
    for i, character in enumerate(text):
        inside = 0 < i < len(text) - 1 and text[i - 1].isalnum() and text[i + 1].isalnum()
        if character == "'" and inside:
            kept.append(character)
        elif unicodedata.category(character).startswith("P"):
            kept.append(" ")
        else:
            kept.append(character)
    return "".join(kept)


def choose_scoring(
    references: Iterable[str], rate: RateName | Literal["auto"] = "auto", punctuation: Punctuation = "keep"
) -> Scoring:
    """How to score against ``references``: as asked, or as their script is written: MER where there are CJK characters,
    CER where words are not separated (Thai, Lao, Khmer, Myanmar, Tibetan), else WER."""
    if rate != "auto":
        return Scoring(rate, punctuation)
    text = " ".join(references)
    if _ONE.search(text):
        return Scoring("mer", punctuation)
    return Scoring("cer" if _UNSPACED.search(text) else "wer", punctuation)


def punctuation_hint(references: Iterable[str], texts: Iterable[str]) -> str:
    """One sentence when the references are punctuated and what was recognised never is; else ""."""
    marks = {c for text in references for c in text if unicodedata.category(c).startswith("P") and c not in "'\u2019-"}
    if not marks or any(c in marks for text in texts for c in text):
        return ""
    shown = " ".join(sorted(marks)[:8])
    return (
        f"the references hold punctuation ({shown}) that no text has, and it counts as errors; leave it out on both "
        "sides with --punctuation drop"
    )
