"""``u2edge bench``: tables for people, JSON for reports."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.runtime.engines.config import EngineConfig
from edge.system.assets import samples
from edge.system.files import write_json
from u2edge.options import (
    DEFAULT_BUNDLE,
    Baseline,
    BaselineEngine,
    BundleOption,
    ChunkMs,
    Device,
    DeviceOption,
    Engine,
    EngineOption,
    Json,
    LeftChunks,
    Precision,
    PrecisionOption,
    Processes,
    Reencode,
    Rescoring,
    Threads,
    baseline_config,
)

EXAMPLE = "u2edge bench --bundle build/int8 --baseline build/fp32 --threads 1"


def bench(
    bundle: BundleOption = DEFAULT_BUNDLE,
    baseline: Baseline = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            help="Stream this recording, or a folder of them; repeatable. [default: the sample recordings, else noise]"
        ),
    ] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Stream synthetic noise instead of recordings.")] = False,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = 16,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    baseline_engine: BaselineEngine = None,
    threads: Threads = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Measure for this many seconds, in whole loads of two rounds.")
    ] = 20.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Repeat the recordings exactly this often instead.")] = None,
    processes: Processes = 3,
    json: Json = None,
) -> None:
    """Latency per chunk, real-time factor, memory, load time and size: one bundle, or two in alternation."""
    from quant.measure.bench.audio import BenchError, recordings
    from quant.measure.bench.measure import BenchOptions
    from quant.measure.bench.measure import bench as run
    from quant.measure.bench.tables import print_result

    config = EngineConfig(engine.value, device.value, threads, precision.value)
    options = BenchOptions(
        chunk_ms=chunk_ms,
        left_chunks=left_chunks,
        rescoring=rescoring,
        reencode=reencode,
        seconds=seconds,
        rounds=rounds,
        processes=processes,
        engine=config,
        baseline_engine=baseline_config(config, baseline, baseline_engine),
    )
    if noise and audio:
        raise BenchError("expected --audio or --noise, found both; use one or the other")
    if not audio and not noise and samples().is_dir():
        audio = [samples()]
    result = run(
        bundle, baseline, options, recordings(audio or []), lambda text: print(text, file=sys.stderr, flush=True)
    )
    if json is not None:
        write_json(json, asdict(result))
    print_result(result)
