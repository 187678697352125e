"""Latency, memory and size of one bundle, or of two in alternation.

Two bundles are streamed side by side in one process, chunk by chunk (A B A B ...), so that whatever else the machine
does hits both alike; what is compared is a pair measured within milliseconds. Each chunk therefore finds the caches
filled by the other bundle, as on a device that does something else between two chunks. (A B B A would not do: the
second of two chunks in a row finds its own weights in the cache, and a bundle against itself came out at 1.13.) Both
are loaded again every two rounds, because where the weights come to lie in memory is worth some percent too.

Everything here runs on the device: no torch. Results are frozen dataclasses of plain values (``dataclasses.asdict`` is
JSON). Times are milliseconds of wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime import DecodeOptions, Recognizer, Stream
from edge.runtime.audio import Samples
from edge.runtime.audio_files import read_resampled
from edge.runtime.engines.config import EngineConfig
from edge.system.commandline import command_line
from quant.measure.bench.audio import BenchError, noise
from quant.measure.bench.machine import bundle_id, machine, versions
from quant.measure.bench.process import Process, measure_processes
from quant.measure.bench.stats import Ratio, Spread, ratio, spread

SCHEMA_VERSION = 1
ROUNDS_PER_LOAD = 2  # even: each bundle begins each recording equally often
LONGEST_S = 60.0  # of a recording; the rest of a longer one is left out
RATIOS = {
    "chunk": "time per chunk",
    "engine": "time of the encoder alone",
    "finish": "time to finish an utterance",
    "rescoring": "time of rescoring",
    "rtf": "computing in all",
    "load": "time to load",
    "memory": "peak memory of the process",
    "memory_added": "memory that the bundle adds",
    "bytes": "bytes on disk",
}
"""Key -> what is compared, for people."""


@dataclass(frozen=True)
class BenchOptions:
    """What to run."""

    chunk_ms: float | None = None  # None: 640 ms, or what the model was trained for
    left_chunks: int = 16
    rescoring: bool = True
    reencode: bool | None = None  # None: as each bundle recommends
    seconds: float = 20.0  # of measuring, in whole loads of two rounds
    rounds: int | None = None  # or exactly this many
    processes: int = 3  # of their own, per bundle, for load time and memory; 0: neither is measured
    engine: EngineConfig = field(default_factory=EngineConfig)  # threads of None: as many as pay for the bundle
    baseline_engine: EngineConfig | None = None  # None: as the bundle

    def decode(self) -> DecodeOptions:
        """One utterance per recording: an endpoint found by one bundle alone would make their work differ."""
        return DecodeOptions(
            chunk_ms=self.chunk_ms,
            left_chunks=self.left_chunks,
            rescoring=self.rescoring,
            reencode=self.reencode,
            endpoint=None,
        )


@dataclass(frozen=True)
class BundleBench:
    """One bundle."""

    name: str
    path: str
    sha256: str  # of the whole manifest, and so of every file's checksum
    scheme: str  # of the encoder: fp32, static, ...
    decoder_scheme: str
    storage: str
    parameters: int
    experts: int
    bytes: int  # on disk, all files
    encoder_bytes: int
    decoder_bytes: int
    chunk_ms: float  # of audio per chunk
    second_pass: bool  # finish() encodes the utterance again
    threads: int
    chunks: int  # measured
    audio_s: float  # measured
    chunk: Spread  # encoder and search of one full chunk: what a user waits for
    engine: Spread  # the encoder's step alone
    finish: Spread  # finish(): the last, shorter chunk, rescoring, and the second pass
    rescoring: Spread  # of that, rescoring with the second pass
    rtf: float  # seconds of computing per second of audio, everything included
    first_partial_audio_ms: float | None  # median: audio that the first text needed
    first_partial_wall_ms: float | None  # median: computing until the first text
    process: Process | None
    inference: EngineConfig


@dataclass(frozen=True)
class BenchResult:
    """Everything ``u2edge bench --json`` writes."""

    bundle: BundleBench
    baseline: BundleBench | None
    ratios: dict[str, Ratio]  # RATIOS, as far as both were measured
    options: BenchOptions
    rounds: int  # all recordings were streamed this many times
    loads: int  # the bundles were loaded, and warmed up, this many times
    audio: dict[str, float]  # recording -> seconds
    synthetic: bool  # noise instead of recordings
    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    schema_version: int = SCHEMA_VERSION


def bench(
    bundle: Path,
    baseline: Path | None = None,
    options: BenchOptions | None = None,
    audio: Sequence[Path] = (),
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Measure ``bundle``, and ``baseline`` beside it.

    Args:
        bundle, baseline: directories.
        options: what to run.
        audio: recordings, of which the first ``LONGEST_S`` seconds are used; none: 10 s of synthetic noise, which is
            enough for a random model.
        progress: called with what is being done.

    Raises:
        BenchError: no recording as long as a chunk, or bundles that cut audio into different chunks.
        AudioError, BundleError, BackendError, OptionsError: as the recognizer.
    """
    options = options or BenchOptions()
    say = progress or (lambda _: None)
    say("loading")
    pairs = ((bundle, options.engine), (baseline, options.baseline_engine or options.engine))
    lanes: list[_Lane] = []
    for path, how in pairs:
        if path:
            # Where none were asked for, the baseline gets those that pay for the bundle: one thing is compared.
            threads = lanes[0].recognizer.backend.threads if lanes else how.threads
            lanes.append(_Lane(Recognizer.load(path, replace(how, threads=threads)), options))
    _check_alike(lanes)
    rate = lanes[0].recognizer.manifest.features.sample_rate
    sources = {str(path): read_resampled(path, rate, LONGEST_S)[0] for path in audio} or {"noise": noise(10.0, rate)}
    process = _processes(lanes, options, max(audio, key=lambda path: len(sources[str(path)]), default=None), say)
    stride = round(lanes[0].plan.chunk_ms * rate / 1000)
    rounds, measured_s = 0, 0.0
    while _another(rounds, options, measured_s):
        if rounds % ROUNDS_PER_LOAD == 0:
            _warm_up(lanes, next(iter(sources.values())), rate, stride, rounds // ROUNDS_PER_LOAD)
        began = time.perf_counter()
        for number, samples in enumerate(sources.values()):
            order = lanes if (rounds + number) % 2 else lanes[::-1]
            _side_by_side(order, samples, rate, stride)
        rounds, measured_s = rounds + 1, measured_s + time.perf_counter() - began
        say(f"round {rounds}, {len(lanes[0].chunk)} chunks, {measured_s:.0f} s")
    if not lanes[0].chunk:
        longest = max(len(samples) for samples in sources.values()) / rate
        raise BenchError(
            f"expected a recording longer than one chunk ({lanes[0].plan.chunk_ms:g} ms and the next frames), "
            f"found {longest:.2f} s at most; name a longer one with --audio, or a smaller --chunk-ms"
        )
    results = [lane.result(p) for lane, p in zip(lanes, process)]
    return BenchResult(
        bundle=results[0],
        baseline=results[1] if baseline else None,
        ratios=_ratios(lanes, results) if baseline else {},
        options=options,
        rounds=rounds,
        loads=lanes[0].loads,
        audio={name: len(samples) / rate for name, samples in sources.items()},
        synthetic=not audio,
        machine=machine(),
        versions=versions(),
        command=command_line(),
    )


class _Lane:
    """One loaded bundle and what was measured of it; times in ms, one entry per chunk or per recording."""

    def __init__(self, recognizer: Recognizer, options: BenchOptions) -> None:
        self.recognizer, self.options, self.decode = recognizer, options, options.decode()
        self.plan = recognizer.prepare(self.decode)
        self.loads, self.audio_s = 0, 0.0
        self.chunk: list[float] = []
        self.engine: list[float] = []
        self.chunk_load: list[int] = []
        self.finish: list[float] = []
        self.rescoring: list[float] = []
        self.compute: list[float] = []
        self.finish_load: list[int] = []
        self.first_audio: list[float] = []
        self.first_wall: list[float] = []

    def reload(self) -> None:
        """The same bundle in new memory."""
        directory, engine = self.recognizer.bundle.directory, EngineConfig.of(self.recognizer.backend)
        del self.recognizer  # never two copies at a time
        self.recognizer = Recognizer.load(directory, engine, verify=False)
        self.loads += 1

    def result(self, process: Process | None) -> BundleBench:
        bundle = self.recognizer.bundle
        manifest, known = bundle.manifest, bundle_id(bundle)
        return BundleBench(
            name=known.name,
            path=known.path,
            sha256=known.sha256,
            scheme=known.scheme,
            decoder_scheme=known.decoder_scheme,
            storage=known.storage,
            parameters=manifest.source.parameters,
            experts=manifest.moe.experts,
            bytes=known.bytes,
            encoder_bytes=manifest.encoder.bytes,
            decoder_bytes=manifest.decoder.bytes if manifest.decoder else 0,
            chunk_ms=self.plan.chunk_ms,
            second_pass=self.plan.reencode,
            threads=self.recognizer.backend.threads,
            chunks=len(self.chunk),
            audio_s=self.audio_s,
            chunk=spread(self.chunk),
            engine=spread(self.engine),
            finish=spread(self.finish),
            rescoring=spread(self.rescoring),
            rtf=sum(self.compute) / 1000 / self.audio_s,
            first_partial_audio_ms=float(np.median(self.first_audio)) if self.first_audio else None,
            first_partial_wall_ms=float(np.median(self.first_wall)) if self.first_wall else None,
            process=process,
            inference=EngineConfig.of(self.recognizer.backend),
        )


@dataclass
class _Run:
    """One recording through one bundle."""

    lane: _Lane
    stream: Stream
    accepted_ms: float = 0.0  # in accept(), so far
    first_wall: float | None = field(default=None)

    def accept(self, samples: Samples, rate: int) -> None:
        """Up to one chunk of audio, which completes at most one window."""
        stats = self.stream.stats
        chunks, encoder_s, began = stats.chunks, stats.encoder_s, time.perf_counter()
        self.stream.accept(samples, rate)
        self.accepted_ms += (time.perf_counter() - began) * 1000
        if stats.chunks == chunks + 1:
            self.lane.chunk.append(stats.chunk_ms[-1])
            self.lane.engine.append((stats.encoder_s - encoder_s) * 1000)
            self.lane.chunk_load.append(self.lane.loads)
        if self.first_wall is None and stats.first_partial_audio_ms is not None:
            self.first_wall = self.accepted_ms

    def finish(self) -> None:
        stats, lane, began = self.stream.stats, self.lane, time.perf_counter()
        self.stream.finish()
        lane.finish.append((time.perf_counter() - began) * 1000)
        lane.rescoring.append(stats.rescoring_s * 1000)
        lane.compute.append(stats.compute_s * 1000)
        lane.finish_load.append(lane.loads)
        lane.audio_s += stats.audio_s
        if stats.first_partial_audio_ms is not None:
            lane.first_audio.append(stats.first_partial_audio_ms)
            # Text that only the last, shorter chunk brought: all of the computing came before it.
            lane.first_wall.append(self.accepted_ms + lane.finish[-1] if self.first_wall is None else self.first_wall)


def _another(rounds: int, options: BenchOptions, measured_s: float) -> bool:
    """Whether to stream all recordings again: as often as was asked, or whole loads until the time is over."""
    if options.rounds is not None:
        return rounds < options.rounds
    return rounds == 0 or rounds % ROUNDS_PER_LOAD != 0 or measured_s < options.seconds


def _warm_up(lanes: Sequence[_Lane], samples: Samples, rate: int, stride: int, load: int) -> None:
    """Load the bundles again, each first in turn, and stream one recording that is not counted."""
    for lane in lanes if load % 2 else lanes[::-1]:
        lane.reload()
    idle = [_Lane(lane.recognizer, lane.options) for lane in lanes]
    _side_by_side(idle, samples, rate, stride)


def _side_by_side(lanes: Sequence[_Lane], samples: Samples, rate: int, stride: int) -> None:
    """One recording through all ``lanes`` in turn, ``stride`` samples at a time."""
    runs = [_Run(lane, lane.recognizer.stream(lane.decode)) for lane in lanes]
    for start in range(0, len(samples), stride):
        for run in runs:
            run.accept(samples[start : start + stride], rate)
    for run in runs:
        run.finish()


def _check_alike(lanes: Sequence[_Lane]) -> None:
    """Both bundles cut the same audio into the same chunks, so that chunks can be compared one by one."""

    def cut(lane: _Lane) -> tuple[float, ...]:
        f, s = lane.recognizer.manifest.features, lane.recognizer.manifest.stream
        return lane.plan.chunk_ms, f.sample_rate, f.frame_shift_ms, s.subsampling, s.right_context

    if len({cut(lane) for lane in lanes}) > 1:
        found = " and ".join(f"{lane.recognizer.manifest.name} {cut(lane)}" for lane in lanes)
        raise BenchError(
            "expected two bundles with the same chunk (ms), sample rate (Hz), frame shift (ms), subsampling and right "
            f"context, found {found}; give --chunk-ms when only the chunk differs"
        )


def _processes(
    lanes: Sequence[_Lane], options: BenchOptions, audio: Path | None, say: Callable[[str], None]
) -> list[Process | None]:
    if not options.processes:
        return [None for _ in lanes]
    say(f"load time and memory, {options.processes} processes per bundle")
    what = [(lane.recognizer.bundle.directory, EngineConfig.of(lane.recognizer.backend)) for lane in lanes]
    return list(measure_processes(what, options.decode(), audio, LONGEST_S, options.processes))


def _ratios(lanes: Sequence[_Lane], results: Sequence[BundleBench]) -> dict[str, Ratio]:
    new, old = lanes
    found = {}
    for name in ("chunk", "engine", "finish", "rescoring"):
        a, b = getattr(new, name), getattr(old, name)
        if np.median(a) > 0 and np.median(b) > 0:
            found[name] = ratio(a, b, loads=new.chunk_load if name in ("chunk", "engine") else new.finish_load)
    found["rtf"] = ratio(new.compute, old.compute, np.sum, new.finish_load)
    found["bytes"] = Ratio(results[0].bytes / results[1].bytes)
    first, second = results[0].process, results[1].process
    if first is not None and second is not None:
        found["load"] = Ratio(first.load_ms / second.load_ms)
        if first.peak_mb and second.peak_mb and first.added_mb and second.added_mb:
            found["memory"] = Ratio(first.peak_mb / second.peak_mb)
            found["memory_added"] = Ratio(first.added_mb / second.added_mb)
    return {key: found[key] for key in RATIOS if key in found}
