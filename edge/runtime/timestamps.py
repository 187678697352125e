"""Start and end of tokens from their CTC emission frames."""

from __future__ import annotations

from collections.abc import Sequence

GAP_MS = 100.0
"""A token is taken to start this long before the frame that emits it, unless its neighbour is nearer."""


def token_spans(times: Sequence[int], frame_ms: float) -> list[tuple[float, float]]:
    """(start, end) of each token in ms of the utterance, as WeNet's ``AsrDecoder::UpdateResult``.

    CTC emits a token in one frame, late in its sound. A token spans the GAP_MS before its frame; between two
    tokens nearer than that, the border is half-way, rounded down to a frame.
    """
    spans = []
    for index, time in enumerate(times):
        start, end = max(time * frame_ms - GAP_MS, 0.0), time * frame_ms
        if index > 0 and (time - times[index - 1]) * frame_ms < GAP_MS:
            start = (times[index - 1] + time) // 2 * frame_ms
        if index + 1 < len(times) and (times[index + 1] - time) * frame_ms < GAP_MS:
            end = (times[index + 1] + time) // 2 * frame_ms
        spans.append((start, end))
    return spans
