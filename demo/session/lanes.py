"""One recognizer reading the audio buffer: chunk by chunk, from cut to cut."""

from __future__ import annotations

import dataclasses
import math
import time

from demo.events import Event, ExpertLoad, Final, Meters, Partial, shifted
from demo.session.audio_buffer import PER_MS, RATE, AudioBuffer
from demo.session.experts import ExpertWindow
from demo.session.loader import Prepared
from demo.session.meters import Speed
from edge.runtime import DecodeOptions, Result

_LEAST = RATE // 100  # samples; for models of another rate, whose resampler holds some back


class LaneDecoder:
    """Reads the buffer from ``position`` on and says what it hears. Events carry times since the source was opened.

    At most one chunk is decoded per step, so that expert counts belong to one chunk and the age of a text is that of
    the last sample it covers. Only the step after a change to smaller chunks may decode several: those that the audio
    of the unfinished larger one makes up.
    """

    def __init__(self, prepared: Prepared, buffer: AudioBuffer, at: int = 0, cut: int = 0) -> None:
        self.prepared, self.buffer = prepared, buffer
        self.index = prepared.lane.index
        self.level = 0
        self.partials = True
        self.speed = Speed()
        self.position = at
        self.cut = cut
        """Number of the next cut."""
        self._options = prepared.options
        self._quiet_until = at  # audio up to here is heard again: its partial texts were shown already
        self._segment = 0
        moe = prepared.recognizer.manifest.moe
        self._experts = ExpertWindow(len(moe.layers), moe.experts) if moe.layers else None
        self._begin(at)

    def going_on(self, prepared: Prepared) -> LaneDecoder:
        """The lane that goes on here, with another recognizer or other options.

        This one, in the middle of the utterance, when only chunks and left context differ; else a new one that hears
        the utterance again from its first sample.
        """
        if self.prepared.recognizer is prepared.recognizer and _but_chunks(self._options, prepared.options):
            self.prepared = prepared
            self.change(0)
            return self
        lane = LaneDecoder(prepared, self.buffer, self.utterance, self.cut)
        lane._quiet_until, lane._segment = max(self.position, self._quiet_until), self._segment
        return lane

    @property
    def options(self) -> DecodeOptions:
        """In force now: those chosen, or a fallback."""
        return self._options

    @property
    def chunk_ms(self) -> float:
        return self._stream.plan.chunk_ms

    @property
    def utterance(self) -> int:
        """Position where the current utterance begins; what is before it is never read again."""
        return self._at(self._stream.partial.start_ms)

    @property
    def lag_s(self) -> float:
        """Seconds of audio captured and not handed to the recognizer; the chunk being filled does not count."""
        return (self.buffer.end - self.position) / RATE

    @property
    def idle(self) -> bool:
        """Everything in the buffer is decoded, and no cut is left."""
        return self.position >= self.buffer.end and self.buffer.cut_at(self.cut) is None

    def step(self) -> list[Event]:
        """Take audio for at most one chunk, or pass a cut; does nothing when idle.

        Raises:
            EdgeError: or whatever the engine throws; the lane cannot go on then.
        """
        cut = self.buffer.cut_at(self.cut)
        if cut is not None and self.position >= cut:
            self.cut += 1
            events = self._close()
            self._begin(cut)
            return events
        stop = self.buffer.end if cut is None else min(cut, self.buffer.end)
        count = min(stop - self.position, self._wanted())
        if count <= 0:
            return []
        samples = self.buffer.read(self.position, count)
        began = time.perf_counter()
        results = self._stream.accept(samples, RATE)
        self.position += count
        chunks = self._account(count, time.perf_counter() - began)
        events = self._finals(results, self._covered())
        if chunks and (results or (self.partials and self.position >= self._quiet_until)):
            events.append(self._partial())
        return events + self.expert_load() if chunks else events

    def change(self, level: int) -> None:
        """Go on with the options of an overload level from the next chunk on; the utterance goes on as well."""
        fallbacks = self.prepared.fallbacks
        if level and fallbacks:
            options = fallbacks[min(level, len(fallbacks)) - 1]
        else:
            options = self.prepared.options
        self.level, self.partials = level, level <= len(fallbacks)
        self._stream.rechunk(options)
        self._options = options

    def meters(self, cpu_percent: float, memory_mb: float, dropped: int) -> Meters:
        speed = self.speed
        lag = 1000.0 * self.lag_s
        p50, p95 = speed.chunk_ms(50), speed.chunk_ms(95)
        return Meters(self.index, p50, p95, speed.rtf, lag, cpu_percent, memory_mb, dropped)

    def expert_load(self) -> list[Event]:
        """Nothing for a model without experts."""
        return [] if self._experts is None else [ExpertLoad(self.index, *self._experts.load())]

    def _begin(self, at: int) -> None:
        self._stream = self.prepared.recognizer.stream(self._options)
        self._base = self.position = at
        self._chunks = 0  # of this stream, seen so far
        manifest = self.prepared.recognizer.manifest
        features, stream = manifest.features, manifest.stream
        overlap = stream.right_context + 1 - stream.subsampling  # frames a window reaches past its last encoder frame
        self._ahead_ms = overlap * features.frame_shift_ms + features.frame_length_ms - features.frame_shift_ms

    def _close(self) -> list[Event]:
        """End the stream: what is left is decoded as a short chunk, and the utterance becomes final."""
        began = time.perf_counter()
        results = self._stream.finish()
        chunks = self._account(0, time.perf_counter() - began)
        finals = self._finals(results, self.position)
        here = self.position / PER_MS
        nothing = Partial(self.index, Result("", here, here, False, self._segment), 0.0)
        return [*finals, nothing, *(self.expert_load() if chunks else [])]

    def _at(self, ms: float) -> int:
        """Position in the buffer of a time of the stream."""
        return self._base + max(0, math.floor(ms * PER_MS + 0.5))

    def _covered(self) -> int:
        """Position after the last sample that was decoded; at the start of an utterance, that decided its start."""
        return min(self.position, self._at(self._stream.partial.end_ms + self._ahead_ms))

    def _wanted(self) -> int:
        """Samples that complete the next chunk."""
        reach = self._at(self._stream.partial.end_ms + self._stream.plan.chunk_ms + self._ahead_ms)
        return max(reach - self.position, _LEAST)

    def _account(self, count: int, seconds: float) -> int:
        """Note the work done for ``count`` samples; returns the chunks it decoded."""
        stats = self._stream.stats
        chunks, self._chunks = stats.chunks - self._chunks, stats.chunks
        latest = list(stats.chunk_ms)[-chunks:] if chunks else []
        self.speed.add(count / RATE, seconds, latest)
        counts = self._stream.expert_counts
        if chunks and counts is not None and self._experts is not None:
            self._experts.add(counts, self.chunk_ms)
        return chunks

    def _finals(self, results: list[Result], covered: int) -> list[Event]:
        events: list[Event] = []
        for result in results:
            moved = shifted(dataclasses.replace(result, segment=self._segment), self._base / PER_MS)
            self._segment += 1
            events.append(Final(self.index, moved, self._age(covered)))
        return events

    def _partial(self) -> Partial:
        partial = dataclasses.replace(self._stream.partial, segment=self._segment)
        return Partial(self.index, shifted(partial, self._base / PER_MS), self._age(self._covered()))

    def _age(self, position: int) -> float:
        return 1000.0 * max(0.0, time.monotonic() - self.buffer.captured(position))


def _but_chunks(one: DecodeOptions, other: DecodeOptions) -> bool:
    """Alike but for what ``Stream.rechunk`` can change."""
    return dataclasses.replace(one, chunk_ms=other.chunk_ms, left_chunks=other.left_chunks) == other
