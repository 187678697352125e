"""Decoding options, and their check against what a bundle supports."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from edge.runtime.endpoint import EndpointOptions
from edge.runtime.errors import OptionsError
from edge.runtime.manifest import Manifest

MAX_BEAM = 1000


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode a stream. One bundle serves every choice here; nothing is converted again.

    A word is shown up to one chunk after it was said, plus the time to compute the chunk.
    """

    chunk: int | None = None
    """Encoder frames per chunk; None: 16, or what the model was trained for."""
    chunk_ms: float | None = None
    """The same in ms; a multiple of the encoder frame (40 ms for 4-fold subsampling of 10 ms frames)."""
    full_context: bool = False
    """Encode the whole recording at once: most accurate, but nothing is shown before ``finish()`` and no endpoint is
    looked for; only ``max_utterance_ms`` cuts it."""
    left_chunks: int = -1
    """Chunks of left context for attention; -1: all of the utterance; 0: none."""
    beam: int = 10
    """Prefixes kept by the CTC search, and hypotheses to rescore; a smaller vocabulary makes it smaller."""
    rescoring: bool = True
    """Let the attention decoders choose among the hypotheses when an utterance ends."""
    reencode: bool | None = None
    """Encode a finished utterance once more, in full context, before rescoring: as accurate as ``full_context``
    while words still appear chunk by chunk. It costs one pass over the utterance when it ends. None: as the
    bundle recommends."""
    ctc_weight: float = 0.5
    """Weight of the CTC score beside the attention score."""
    reverse_weight: float | None = None
    """Share of the right-to-left decoder, 0..1; None: as trained (from the manifest)."""
    endpoint: EndpointOptions | None = field(default_factory=EndpointOptions)
    """When an utterance ends; None: only at ``finish()`` (for files that are one utterance each)."""
    max_utterance_ms: float | None = None
    """Cut an utterance that gets longer than this; None: where the position table ends (200 s at 40 ms)."""
    nbest: int = 1
    """Hypotheses listed in a final result."""
    sample_rate: int | None = None
    """The rate in Hz the caller counts on the model to have; None: whatever it has. Not the rate of the audio, which
    ``accept`` is told and which is resampled."""


@dataclass(frozen=True)
class Plan:
    """Options resolved for one bundle; frames are encoder frames."""

    chunk: int  # the whole utterance when full_context
    full_context: bool
    left_frames: int  # -1: all
    max_frames: int  # an utterance is cut before it would exceed this
    frame_ms: float
    beam: int
    nbest: int
    rescoring: bool
    reencode: bool
    ctc_weight: float
    reverse_weight: float
    endpoint: EndpointOptions | None

    @property
    def chunk_ms(self) -> float:
        return self.chunk * self.frame_ms


def plan(options: DecodeOptions, manifest: Manifest) -> Plan:
    """Resolve ``options`` for a bundle.

    Raises:
        OptionsError: an option the bundle does not support; the message lists what it supports.
    """
    stream = manifest.stream
    frame_ms = stream.subsampling * manifest.features.frame_shift_ms
    rate = manifest.features.sample_rate
    if options.sample_rate is not None and options.sample_rate != rate:
        raise OptionsError(
            f"sample_rate: expected {rate} Hz, which the model was trained with, found {options.sample_rate!r}; leave "
            "it out: audio of any rate is resampled"
        )
    limit = _max_frames(options, manifest, frame_ms)
    if options.full_context:
        if options.chunk is not None or options.chunk_ms is not None or options.left_chunks != -1:
            raise OptionsError(
                "full_context: expected no chunk, chunk_ms or left_chunks beside it; use one or the other; "
                f"{supported(manifest)}"
            )
        if stream.static_chunk and stream.streaming:
            raise OptionsError(
                f"full_context: this model was trained with chunks of {stream.static_chunk} frames "
                f"only; {supported(manifest)}"
            )
        chunk, left = limit, -1
    else:
        chunk, left = _chunk(options, manifest, frame_ms), options.left_chunks
        if not _is_int(left) or left < -1:
            raise OptionsError(f"left_chunks: expected -1 (all), 0 or more, found {left!r}; {supported(manifest)}")
        if chunk > limit:
            raise OptionsError(
                f"max_utterance_ms: expected at least one chunk ({chunk * frame_ms:g} ms), "
                f"found {options.max_utterance_ms:g}"
            )
    reverse = options.reverse_weight
    if reverse is None:
        reverse = manifest.rescoring.reverse_weight if manifest.rescoring.bidirectional else 0.0
    if not _is_number(reverse) or not 0.0 <= reverse <= 1.0:
        raise OptionsError(f"reverse_weight: expected 0..1, found {reverse!r}")
    if reverse > 0.0 and not manifest.rescoring.bidirectional:
        raise OptionsError(f"reverse_weight: expected 0, the bundle has no right-to-left decoder, found {reverse!r}")
    if not _is_number(options.ctc_weight) or options.ctc_weight < 0.0:
        raise OptionsError(f"ctc_weight: expected a number of 0 or more, found {options.ctc_weight!r}")
    if not _is_int(options.beam) or not 1 <= options.beam <= MAX_BEAM:
        raise OptionsError(f"beam: expected 1..{MAX_BEAM}, found {options.beam!r}")
    beam = min(options.beam, manifest.tokens.size)
    if not _is_int(options.nbest) or not 1 <= options.nbest <= options.beam:
        raise OptionsError(f"nbest: expected 1..{options.beam} (the beam), found {options.nbest!r}")
    return Plan(
        chunk=chunk,
        full_context=options.full_context,
        left_frames=-1 if left < 0 else left * chunk,
        max_frames=limit,
        frame_ms=frame_ms,
        beam=beam,
        nbest=options.nbest,
        rescoring=options.rescoring and manifest.decoder is not None,
        reencode=_reencode(options, manifest),
        ctc_weight=options.ctc_weight,
        reverse_weight=reverse,
        endpoint=None if options.full_context else options.endpoint,
    )


def replan(current: Plan, options: DecodeOptions, manifest: Manifest) -> Plan:
    """Resolve ``options`` for a stream that has begun: only its chunks and left context may change.

    Raises:
        OptionsError: as :func:`plan`, or something else differs from ``current``.
    """
    changed = plan(options, manifest)
    kept = dataclasses.replace(changed, chunk=current.chunk, left_frames=current.left_frames)
    for entry in dataclasses.fields(Plan):
        before, after = getattr(current, entry.name), getattr(kept, entry.name)
        if before != after:
            raise OptionsError(
                f"{entry.name}: expected {before!r} as before in this stream, where only chunk, chunk_ms and "
                f"left_chunks can change, found {after!r}; start a new stream: recognizer.stream(options)"
            )
    return changed


def _reencode(options: DecodeOptions, manifest: Manifest) -> bool:
    if options.reencode and manifest.stream.static_chunk:
        raise OptionsError(
            f"reencode: this model was trained with chunks of {manifest.stream.static_chunk} frames only and has no "
            f"full context; {supported(manifest)}"
        )
    if options.full_context or not options.rescoring or manifest.decoder is None:
        return False
    return manifest.stream.reencode if options.reencode is None else options.reencode


def supported(manifest: Manifest) -> str:
    """One line for people: which chunk sizes and modes the bundle offers."""
    stream = manifest.stream
    frame_ms = stream.subsampling * manifest.features.frame_shift_ms
    if not stream.streaming:
        return "supported: full_context"
    if stream.static_chunk:
        return f"supported: chunk {stream.static_chunk} ({stream.static_chunk * frame_ms:g} ms)"
    return (
        f"supported: chunk 1..{stream.max_positions} (multiples of {frame_ms:g} ms; trained with up to "
        f"{stream.max_chunk} = {stream.max_chunk * frame_ms:g} ms), left_chunks -1, 0 or more, full_context"
    )


def _chunk(options: DecodeOptions, manifest: Manifest, frame_ms: float) -> int:
    stream = manifest.stream
    if not stream.streaming:
        why = stream.why_not_streaming or "the manifest gives no reason"
        raise OptionsError(f"this model cannot stream: {why}; use full_context (--full-context), {supported(manifest)}")
    if options.chunk is not None and options.chunk_ms is not None:
        raise OptionsError(
            f"expected chunk or chunk_ms, found both: {options.chunk!r} frames and {options.chunk_ms!r} ms"
        )
    chunk = options.chunk
    if options.chunk_ms is not None:
        if not _is_number(options.chunk_ms) or options.chunk_ms <= 0:
            raise OptionsError(
                f"chunk_ms: expected a positive number, found {options.chunk_ms!r}; {supported(manifest)}"
            )
        chunk = round(options.chunk_ms / frame_ms)
        if chunk < 1 or not math.isclose(chunk * frame_ms, options.chunk_ms, abs_tol=1e-6):
            near = sorted({max(1, math.floor(options.chunk_ms / frame_ms)), math.ceil(options.chunk_ms / frame_ms)})
            choices = " or ".join(f"{frames * frame_ms:g}" for frames in near)
            raise OptionsError(
                f"chunk_ms: expected a multiple of {frame_ms:g} ms, found {options.chunk_ms:g}; "
                f"nearest: {choices}; {supported(manifest)}"
            )
    if chunk is None:
        chunk = stream.default_chunk
    if not _is_int(chunk) or not 1 <= chunk <= stream.max_positions or chunk != (stream.static_chunk or chunk):
        raise OptionsError(f"chunk: found {chunk!r} frames; {supported(manifest)}")
    return chunk


def _max_frames(options: DecodeOptions, manifest: Manifest, frame_ms: float) -> int:
    longest = options.max_utterance_ms
    if longest is None:
        return manifest.stream.max_positions
    if not _is_number(longest) or longest < frame_ms:
        raise OptionsError(f"max_utterance_ms: expected at least {frame_ms:g} (one encoder frame), found {longest!r}")
    return min(manifest.stream.max_positions, int(longest // frame_ms))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
