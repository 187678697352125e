"""Options of the commands: report."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edge.cli_options import Threads


class Part(enum.StrEnum):
    """What a report measures."""

    wer = "wer"
    bench = "bench"
    agreement = "agreement"
    sensitivity = "sensitivity"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``. What they run is imported when they run."""
    app.command(
        epilog="Example: u2edge report models/reference --baseline build/fp32 --bundle build/int8 "
        "--profile build/reference.profile --data speech/dev"
    )(report)


def report(
    baseline: Annotated[Path, typer.Option("--baseline", "-a", help="The fp32 bundle.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The quantized bundle of the same checkpoint.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CKPT]", help="WeNet experiment directory, for the sensitivity.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Calibration profile, for the coverage and the sensitivity of static int8.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", "-d", help="Manifest (JSONL with audio and text), or its folder; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of report.html and report.json.")] = Path(
        "build/report"
    ),
    split: Annotated[
        str, typer.Option(help="Only lines of this split, and lines that name none; 'all': every line.")
    ] = "dev",
    limit: Annotated[int, typer.Option(min=0, help="At most this many recordings, spread evenly; 0: all.")] = 0,
    match: Annotated[str, typer.Option(help="Only recordings whose name contains this.")] = "",
    wer: Annotated[Path | None, typer.Option(help="Reuse this file of u2edge wer --json.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Reuse this file of u2edge bench --json.")] = None,
    skip: Annotated[list[Part] | None, typer.Option(help="Leave this measurement out; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Measure latency for at least this long.")] = 20.0,
    processes: Annotated[
        int, typer.Option(min=0, help="Fresh processes per bundle for load time and memory; 0: leave them out.")
    ] = 3,
    probes: Annotated[int, typer.Option(min=1, help="Recordings for the sensitivity, spread evenly.")] = 8,
    threads: Threads = None,
) -> None:
    """One HTML page and its JSON: what quantizing cost and what it gained.

    What is missing is measured; an interrupted report goes on where it stopped.
    """
    from quant.report.make import run
    from quant.report.measurements import Request
    from quant.wer.compare import Selection

    run(
        Request(
            baseline=baseline,
            bundle=bundle,
            out=out,
            checkpoint=checkpoint,
            profile=profile,
            selection=Selection(tuple(data), None if split == "all" else split, limit, match) if data else None,
            wer=wer,
            bench=bench,
            skip=frozenset(part.value for part in skip or ()),
            threads=threads,
            seconds=seconds,
            processes=processes,
            probes=probes,
        )
    )
