"""Options of the commands: wer and bench."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edge.cli_options import (
    DEFAULT_BUNDLE,
    BundleOption,
    ChunkMs,
    Device,
    DeviceOption,
    Engine,
    EngineOption,
    LeftChunks,
    Precision,
    PrecisionOption,
    Reencode,
    Rescoring,
    Threads,
)
from edge.runtime.errors import OptionsError

Baseline = Annotated[
    Path | None, typer.Option("--baseline", "-a", help="Bundle to compare with, usually the fp32 one.")
]
BaselineEngine = Annotated[
    Engine | None,
    typer.Option(help="Engine of --baseline, on the CPU in f32. [default: engine, device and precision of the bundle]"),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything to this file, for reports.")]


class Contexts(enum.StrEnum):
    """How recordings are encoded."""

    streaming = "streaming"
    full = "full"
    both = "both"


class Switch(enum.StrEnum):
    """On, off, or both measured."""

    on = "on"
    off = "off"
    both = "both"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``. What they run is imported when they run."""
    app.command(
        epilog="Example: u2edge wer --bundle build/int8 --baseline build/fp32 --data speech/dev --max-drop 0.2"
    )(wer)
    app.command(epilog="Example: u2edge bench --bundle build/int8 --baseline build/fp32 --threads 1")(bench)


def _check_baseline(baseline: Path | None, engine: Engine | None) -> None:
    if engine is not None and baseline is None:
        raise OptionsError(
            "--baseline-engine: expected a bundle to compare with, found none; add --baseline BUNDLE, which may be the "
            "same one"
        )


def wer(
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="Manifest (JSONL with audio and text), or its folder; repeatable."),
    ],
    bundle: BundleOption = DEFAULT_BUNDLE,
    baseline: Baseline = None,
    split: Annotated[
        str, typer.Option(help="Only lines of this split, and lines that name none; 'all': every line.")
    ] = "dev",
    limit: Annotated[int, typer.Option(min=0, help="At most this many recordings, spread evenly; 0: all.")] = 0,
    match: Annotated[str, typer.Option(help="Only recordings whose name contains this.")] = "",
    mode: Annotated[Contexts, typer.Option(help="In chunks, the whole recording at once, or both.")] = Contexts.both,
    rescoring: Annotated[Switch, typer.Option(help="With the attention decoders, CTC only, or both.")] = Switch.both,
    reencode: Annotated[
        bool | None,
        typer.Option(
            "--reencode/--no-reencode",
            help="Measure the second pass in full context too. [default: when a bundle recommends it]",
        ),
    ] = None,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = -1,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept by the CTC search and rescored.")] = 10,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0.0, help="Exit code 1 when the WER of any mode rises by more than this many points."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report recordings that cannot be used and leave them out.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Keep transcripts in this file; a run that was interrupted goes on from it.")
    ] = None,
    json: Json = None,
    errors: Annotated[Path | None, typer.Option(help="Write every wrong recording, one JSON object per line.")] = None,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    baseline_engine: BaselineEngine = None,
    threads: Threads = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes; each uses one thread unless told.")] = 1,
) -> None:
    """Word error rates on a corpus: streaming and full context, with and without rescoring, one bundle or two."""
    from quant.inference import Inference, other_engine
    from quant.wer.command import Outputs, run
    from quant.wer.compare import Selection
    from quant.wer.decode import Work

    _check_baseline(baseline, baseline_engine)
    inference = Inference(engine.value, device.value, precision.value)
    raise typer.Exit(
        run(
            bundle,
            baseline,
            Selection(tuple(data), None if split == "all" else split, limit, match),
            (mode.value, rescoring.value, reencode),
            (chunk_ms, left_chunks, beam),
            Work(threads or (1 if jobs > 1 else None), jobs, skip_bad, cache),
            Outputs(max_drop, json, errors),
            (inference, other_engine(inference, baseline_engine)),
        )
    )


def bench(
    bundle: BundleOption = DEFAULT_BUNDLE,
    baseline: Baseline = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            help="Recording, or a folder of them; repeatable. [default: models/reference/samples, else noise]"
        ),
    ] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Synthetic noise instead of recordings.")] = False,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = 16,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    baseline_engine: BaselineEngine = None,
    threads: Threads = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Seconds of measuring, in whole loads of two rounds.")] = 20.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Repeat them exactly this often instead.")] = None,
    processes: Annotated[
        int, typer.Option(min=0, help="Fresh processes per bundle for load time and memory; 0: leave them out.")
    ] = 3,
    json: Json = None,
) -> None:
    """Latency per chunk, real-time factor, memory, load time and size: one bundle, or two in alternation."""
    from quant.bench.command import run
    from quant.bench.measure import BenchOptions
    from quant.inference import Inference, other_engine

    _check_baseline(baseline, baseline_engine)
    inference = Inference(engine.value, device.value, precision.value)
    options = BenchOptions(
        chunk_ms,
        left_chunks,
        rescoring,
        reencode,
        threads,
        seconds,
        rounds,
        processes,
        inference,
        other_engine(inference, baseline_engine),
    )
    raise typer.Exit(run(bundle, baseline, options, audio or [], noise, json))
