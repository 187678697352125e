"""When an utterance ends: the three rules of WeNet's ``runtime/core/decoder/ctc_endpoint``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.runtime.errors import OptionsError


@dataclass(frozen=True)
class EndpointRule:
    """True when all its conditions hold."""

    must_decode_something: bool
    min_silence_ms: float  # of blank frames at the end
    min_utterance_ms: float


@dataclass(frozen=True)
class EndpointOptions:
    """An utterance ends when any rule holds after a chunk. WeNet's defaults."""

    blank_threshold: float = 0.8  # a frame whose blank is more probable counts as silence
    rule1: EndpointRule = EndpointRule(False, 5000.0, 0.0)  # long silence, even if nothing was decoded
    rule2: EndpointRule = EndpointRule(True, 1000.0, 0.0)  # a pause after something was decoded
    rule3: EndpointRule = EndpointRule(False, 0.0, 20000.0)  # a long utterance

    def __post_init__(self) -> None:
        if not 0.0 < self.blank_threshold < 1.0:
            raise OptionsError(f"endpoint.blank_threshold: expected between 0 and 1, found {self.blank_threshold!r}")
        for name, rule in (("rule1", self.rule1), ("rule2", self.rule2), ("rule3", self.rule3)):
            limits = (rule.min_silence_ms, rule.min_utterance_ms)
            if not all(limit >= 0 and not math.isnan(limit) for limit in limits) or not any(limits):
                raise OptionsError(
                    f"endpoint.{name}: expected min_silence_ms or min_utterance_ms above 0, found {limits}; "
                    "to switch a rule off set a limit to math.inf"
                )

    @property
    def longest_ms(self) -> float:
        """No utterance is longer than this and one chunk, however much is said; infinite when no rule limits it."""
        rules = (self.rule1, self.rule2, self.rule3)
        limits = [r.min_utterance_ms for r in rules if r.min_silence_ms == 0 and not r.must_decode_something]
        return min(limits, default=math.inf)


class Endpointer:
    """Counts frames of one utterance and applies the rules after each chunk."""

    def __init__(self, options: EndpointOptions, blank: int, frame_ms: float) -> None:
        self.options, self.blank, self.frame_ms = options, blank, frame_ms
        self.reset()

    def reset(self) -> None:
        """Start a new utterance."""
        self.frames = 0
        self.silent = 0  # frames at the end whose blank is above the threshold

    def advance(self, log_probs: NDArray[np.float32], decoded_something: bool) -> int:
        """Account for one chunk.

        Args:
            log_probs: CTC log-probabilities (frames, vocabulary).
            decoded_something: whether the best hypothesis, this chunk included, has text.

        Returns:
            The number of the first rule that holds, 1 to 3, or 0.
        """
        speech = np.flatnonzero(np.exp(log_probs[:, self.blank]) <= self.options.blank_threshold)
        count = len(log_probs)
        self.frames += count
        self.silent = count - 1 - int(speech[-1]) if len(speech) else self.silent + count
        utterance, silence = self.frames * self.frame_ms, self.silent * self.frame_ms
        for number, rule in enumerate((self.options.rule1, self.options.rule2, self.options.rule3), start=1):
            if (
                (decoded_something or not rule.must_decode_something)
                and silence >= rule.min_silence_ms
                and utterance >= rule.min_utterance_ms
            ):
                return number
        return 0
