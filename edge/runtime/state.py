"""What one stream keeps between chunks, and what one chunk gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EncoderState:
    """Encoder caches of one utterance; every step returns a new one, so streams never share memory."""

    att_cache: NDArray[np.float32]  # (blocks, heads, L, 2 * head_dim); L grows up to left_frames
    cnn_cache: NDArray[np.float32]  # (blocks, 1, dim, conv_context)
    offset: int  # encoder frames of this utterance so far
    left_frames: int  # att_cache frames to keep; -1 keeps the whole utterance

    @property
    def cached(self) -> int:
        """Encoder frames of left context that the next chunk sees."""
        return int(self.att_cache.shape[2])

    def keeping(self, left_frames: int) -> EncoderState:
        """The same state with another left context. What is too old for a shorter one goes; what went is not there
        for a longer one, which fills as the utterance goes on."""
        state = dataclasses.replace(self, left_frames=left_frames)
        keep = state.keep_from(self.cached)
        # A view would keep the whole cache alive.
        return dataclasses.replace(state, att_cache=self.att_cache[:, :, keep:].copy()) if keep else state

    def keep_from(self, keys: int) -> int:
        """Of ``keys`` frames in an untrimmed cache, the first one to keep (WeNet's ``required_cache_size``)."""
        return 0 if self.left_frames < 0 else max(keys - self.left_frames, 0)


@dataclass(frozen=True)
class Step:
    """Output of the encoder for one window of C encoder frames."""

    log_probs: NDArray[np.float32]  # (C, vocabulary), CTC
    encoder_out: NDArray[np.float32]  # (C, dim), for rescoring
    expert_counts: NDArray[np.int64] | None  # (MoE layers, experts): frames routed in this call; None without MoE
    state: EncoderState
