from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.runtime import EndpointOptions, EndpointRule, OptionsError
from edge.runtime.endpoint import Endpointer


def frames(*blank: float) -> NDArray[np.float32]:
    """log_probs (frames, 2) with these blank probabilities."""
    probabilities = np.array([[p, 1 - p] for p in blank])
    return np.asarray(np.log(np.maximum(probabilities, 1e-9)), np.float32)


def silence(count: int) -> NDArray[np.float32]:
    return frames(*[0.99] * count)


def speech(count: int) -> NDArray[np.float32]:
    return frames(*[0.1] * count)


def endpointer(**options: object) -> Endpointer:
    return Endpointer(EndpointOptions(**options), blank=0, frame_ms=40.0)  # type: ignore[arg-type]


def test_rule_1_needs_5_s_of_silence_when_nothing_was_decoded() -> None:
    end = endpointer()
    assert [end.advance(silence(25), False) for _ in range(5)] == [0, 0, 0, 0, 1]  # 25 frames = 1 s
    end.reset()
    assert end.advance(silence(124), False) == 0
    assert end.advance(silence(1), False) == 1


def test_rule_2_needs_1_s_of_silence_after_text() -> None:
    end = endpointer()
    assert end.advance(speech(10), True) == 0
    assert end.advance(silence(24), True) == 0
    assert end.advance(silence(1), True) == 2
    end.reset()
    assert end.advance(np.concatenate([speech(10), silence(25)]), True) == 2
    end.reset()
    assert end.advance(np.concatenate([silence(25), speech(1)]), True) == 0, "silence must be at the end"
    assert end.silent == 0 and end.frames == 26


def test_rule_3_ends_20_s_of_speech() -> None:
    end = endpointer()
    assert [end.advance(speech(16), True) for _ in range(32)] == [0] * 31 + [3]  # 31.25 chunks of 640 ms = 20 s


def test_a_frame_of_speech_starts_the_count_again() -> None:
    end = endpointer()
    end.advance(silence(24), False)
    end.advance(frames(0.9, 0.5, 0.9, 0.9), False)
    assert (end.silent, end.frames) == (2, 28)
    end.advance(silence(3), False)
    assert end.silent == 5


def test_the_threshold_itself_is_speech() -> None:
    end = endpointer(blank_threshold=0.5)
    end.advance(np.log(np.array([[0.5, 0.5]], np.float64)), False)
    assert end.silent == 0
    end.advance(frames(0.51), False)
    assert end.silent == 1


def test_chunk_size_changes_when_rules_are_asked_not_what_they_count() -> None:
    log_probs = np.concatenate([speech(30), silence(7), speech(2), silence(20)])
    for size in (1, 3, 16, 59):
        end = endpointer()
        for start in range(0, len(log_probs), size):
            end.advance(log_probs[start : start + size], True)
        assert (end.frames, end.silent) == (59, 20)


def test_blank_may_have_another_id() -> None:
    end = Endpointer(EndpointOptions(), blank=1, frame_ms=40.0)
    end.advance(speech(3), False)  # p(token 1) = 0.9
    assert end.silent == 3


def test_rules_can_be_changed_and_switched_off() -> None:
    end = endpointer(rule2=EndpointRule(True, 400.0, 0.0), rule3=EndpointRule(False, 0.0, math.inf))
    assert end.advance(speech(2000), True) == 0
    assert end.advance(silence(10), True) == 2
    for bad in (EndpointRule(False, 0.0, 0.0), EndpointRule(True, -1.0, 0.0), EndpointRule(True, math.nan, 1.0)):
        with pytest.raises(OptionsError, match=r"endpoint\.rule2"):
            EndpointOptions(rule2=bad)
    with pytest.raises(OptionsError, match="blank_threshold"):
        EndpointOptions(blank_threshold=1.0)


def test_longest_utterance_is_what_the_rules_allow_whatever_is_said() -> None:
    assert EndpointOptions().longest_ms == 20000.0
    assert EndpointOptions(rule3=EndpointRule(False, 0.0, math.inf)).longest_ms == math.inf
    # A rule that waits for silence or for words bounds nothing: someone may go on speaking, or never speak.
    assert EndpointOptions(rule3=EndpointRule(True, 0.0, 9000.0)).longest_ms == math.inf
