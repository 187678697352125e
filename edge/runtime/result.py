"""What a recognizer returns. All times are milliseconds from the start of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    """One decoded unit of tokens.txt."""

    id: int
    symbol: str
    start_ms: float
    end_ms: float
    confidence: float  # 0..1


@dataclass(frozen=True)
class Word:
    """Tokens up to the next word boundary; confidence is the mean over the tokens, 0..1."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One entry of the n-best list, best first. Scores are natural-log probabilities (sums, not means)."""

    text: str
    token_ids: tuple[int, ...]
    score: float  # what the list is ordered by
    ctc_score: float
    attention_score: float | None = None  # both decoders combined; None without rescoring


@dataclass(frozen=True)
class Result:
    """A transcript of one utterance: final, or the best guess so far.

    ``confidence`` is exp(attention score / (tokens + 1)) after rescoring (WeNet's definition), else the mean
    probability of the CTC tokens; 1.0 for an empty transcript. ``end_ms`` of a partial result is where the
    encoder has arrived.
    """

    text: str
    start_ms: float
    end_ms: float
    is_final: bool
    segment: int  # utterances of the stream before this one
    confidence: float = 1.0
    words: tuple[Word, ...] = ()
    tokens: tuple[Token, ...] = ()
    nbest: tuple[Hypothesis, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``: times with 0.1 ms, probabilities and scores with 4 decimals."""
        return {
            "text": self.text,
            "start_ms": round(self.start_ms, 1),
            "end_ms": round(self.end_ms, 1),
            "is_final": self.is_final,
            "segment": self.segment,
            "confidence": round(self.confidence, 4),
            "words": [_timed({"text": w.text}, w) for w in self.words],
            "tokens": [_timed({"id": t.id, "symbol": t.symbol}, t) for t in self.tokens],
            "nbest": [
                {
                    "text": h.text,
                    "token_ids": list(h.token_ids),
                    "score": round(h.score, 4),
                    "ctc_score": round(h.ctc_score, 4),
                    "attention_score": None if h.attention_score is None else round(h.attention_score, 4),
                }
                for h in self.nbest
            ],
        }


def _timed(head: dict[str, Any], item: Token | Word) -> dict[str, Any]:
    return head | {
        "start_ms": round(item.start_ms, 1),
        "end_ms": round(item.end_ms, 1),
        "confidence": round(item.confidence, 4),
    }
