from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from bundle_helpers import MANIFEST

from edge.runtime import DecodeOptions, OptionsError
from edge.runtime.manifest import Manifest
from edge.runtime.options import plan

BUNDLE = dataclasses.replace(MANIFEST, tokens=dataclasses.replace(MANIFEST.tokens, size=31))


def with_stream(**changes: Any) -> Manifest:
    return dataclasses.replace(BUNDLE, stream=dataclasses.replace(BUNDLE.stream, **changes))


def test_defaults() -> None:
    p = plan(DecodeOptions(), BUNDLE)
    assert (p.chunk, p.chunk_ms, p.left_frames, p.max_frames, p.frame_ms) == (16, 640.0, -1, 5000, 40.0)
    assert p.reverse_weight == 0.3, "as trained"
    assert p.endpoint is not None and not p.full_context


def test_milliseconds_are_frames() -> None:
    in_ms, in_frames = DecodeOptions(chunk_ms=640, left_chunks=4), DecodeOptions(chunk=16, left_chunks=4)
    assert plan(in_ms, BUNDLE) == plan(in_frames, BUNDLE)
    assert plan(DecodeOptions(chunk_ms=160, left_chunks=4), BUNDLE).left_frames == 16
    assert plan(DecodeOptions(left_chunks=0), BUNDLE).left_frames == 0
    six = with_stream(subsampling=6, right_context=10)
    assert plan(DecodeOptions(chunk_ms=480), six).chunk == 8


def test_full_context_takes_the_whole_table_or_the_limit() -> None:
    p = plan(DecodeOptions(full_context=True), BUNDLE)
    assert (p.chunk, p.left_frames, p.endpoint) == (5000, -1, None)
    assert plan(DecodeOptions(full_context=True, max_utterance_ms=30_000), BUNDLE).chunk == 750
    assert plan(DecodeOptions(max_utterance_ms=1e9), BUNDLE).max_frames == 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_ms": 100}, r"multiple of 40 ms, found 100; nearest: 80 or 120; supported: chunk 1\.\.5000"),
        ({"chunk_ms": 10}, "multiple of 40 ms, found 10; nearest: 40"),
        ({"chunk_ms": -40}, "positive"),
        ({"chunk_ms": float("nan")}, "positive"),
        ({"chunk": 0}, r"found 0 frames; supported: chunk 1\.\.5000 \(multiples of 40 ms; trained with up to 25"),
        ({"chunk": 5001}, "found 5001 frames; supported"),
        ({"chunk": 2.5}, r"found 2\.5 frames"),
        ({"chunk": True}, "found True frames"),
        ({"chunk": 16, "chunk_ms": 640}, "found both"),
        ({"left_chunks": -2}, "expected -1 .*found -2"),
        ({"full_context": True, "chunk": 16}, "one or the other"),
        ({"full_context": True, "left_chunks": 4}, "one or the other"),
        ({"beam": 0}, r"beam: expected 1\.\.1000, found 0"),
        ({"beam": 1001}, "found 1001"),
        ({"nbest": 11}, r"nbest: expected 1\.\.10 .*found 11"),
        ({"ctc_weight": -1}, "ctc_weight"),
        ({"ctc_weight": float("inf")}, "ctc_weight"),
        ({"reverse_weight": 1.5}, r"0\.\.1, found 1\.5"),
        ({"max_utterance_ms": 10}, "at least 40"),
        ({"max_utterance_ms": 300}, r"at least one chunk \(640 ms\), found 300"),
    ],
)
def test_unsupported_options_say_what_is_supported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        plan(DecodeOptions(**options), BUNDLE)


def test_a_model_that_cannot_stream_says_why() -> None:
    bundle = with_stream(streaming=False, why_not_streaming="its convolution is not causal")
    with pytest.raises(OptionsError, match=r"cannot stream: its convolution is not causal; .*supported: full_context$"):
        plan(DecodeOptions(), bundle)
    assert plan(DecodeOptions(full_context=True), bundle).full_context


def test_a_model_of_one_chunk_size() -> None:
    bundle = with_stream(static_chunk=12)
    assert plan(DecodeOptions(), bundle).chunk == 12
    for options in (DecodeOptions(chunk=16), DecodeOptions(full_context=True)):
        with pytest.raises(OptionsError, match=r"supported: chunk 12 \(480 ms\)"):
            plan(options, bundle)


def test_one_decoder_has_no_reverse_weight() -> None:
    bundle = dataclasses.replace(BUNDLE, rescoring=dataclasses.replace(BUNDLE.rescoring, bidirectional=False))
    assert plan(DecodeOptions(), bundle).reverse_weight == 0.0
    with pytest.raises(OptionsError, match="no right-to-left decoder"):
        plan(DecodeOptions(reverse_weight=0.3), bundle)


def test_second_pass_follows_the_bundle_unless_told_otherwise() -> None:
    recommended = with_stream(reencode=True)
    assert not plan(DecodeOptions(), BUNDLE).reencode and plan(DecodeOptions(), recommended).reencode
    assert plan(DecodeOptions(reencode=True), BUNDLE).reencode
    assert not plan(DecodeOptions(reencode=False), recommended).reencode
    # Without rescoring there is no second pass, and full context needs none.
    assert not plan(DecodeOptions(rescoring=False), recommended).reencode
    assert not plan(DecodeOptions(full_context=True), recommended).reencode
    with pytest.raises(OptionsError, match=r"reencode.*chunks of 16 frames only"):
        plan(DecodeOptions(reencode=True), with_stream(static_chunk=16))
