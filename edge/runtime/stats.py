"""Timing of one stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_RING = 512  # chunks


@dataclass
class StreamStats:
    """Where the time of a stream went; seconds of wall clock unless a name says otherwise. Of fixed size."""

    audio_s: float = 0.0  # seconds of audio accepted
    feature_s: float = 0.0  # conversion, resampling and filter bank
    encoder_s: float = 0.0
    search_s: float = 0.0
    rescoring_s: float = 0.0
    chunks: int = 0
    utterances: int = 0  # with text
    first_partial_audio_ms: float | None = None  # audio, from the start, that the first text needed
    first_partial_wall_ms: float | None = None  # time since the first accept() when the first text appeared
    chunk_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_RING))  # encoder + search, last chunks

    @property
    def compute_s(self) -> float:
        """All seconds spent."""
        return self.feature_s + self.encoder_s + self.search_s + self.rescoring_s

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds spent per second of audio; above 1 the stream falls behind. 0 without audio."""
        return self.compute_s / self.audio_s if self.audio_s else 0.0

    def chunk_percentile(self, percent: float) -> float:
        """Milliseconds within which ``percent`` % of the last chunks were done; 0 before the first."""
        return float(np.percentile(np.fromiter(self.chunk_ms, float), percent)) if self.chunk_ms else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "audio_s": round(self.audio_s, 3),
            "feature_s": round(self.feature_s, 4),
            "encoder_s": round(self.encoder_s, 4),
            "search_s": round(self.search_s, 4),
            "rescoring_s": round(self.rescoring_s, 4),
            "rtf": round(self.rtf, 4),
            "chunks": self.chunks,
            "utterances": self.utterances,
            "first_partial_audio_ms": _rounded(self.first_partial_audio_ms),
            "first_partial_wall_ms": _rounded(self.first_partial_wall_ms),
            "chunk_ms_p50": round(self.chunk_percentile(50), 2),
            "chunk_ms_p95": round(self.chunk_percentile(95), 2),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
