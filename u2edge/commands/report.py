"""``u2edge report``: everything about one bundle on one page, from which a person decides whether to ship it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edge.system.console import note
from u2edge.options import (
    Limit,
    Manifests,
    Match,
    Processes,
    Punctuation,
    PunctuationOption,
    Rate,
    RateOption,
    Split,
    Threads,
)

EXAMPLE = (
    "u2edge report models/reference --baseline build/fp32 --bundle build/int8 --profile build/reference.profile "
    "--data speech/dev"
)


class Part(enum.StrEnum):
    """What a report measures."""

    wer = "wer"
    bench = "bench"
    agreement = "agreement"
    sensitivity = "sensitivity"


def report(
    baseline: Annotated[Path, typer.Option("--baseline", "-a", help="Compare with this bundle, the fp32 one.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", "-b", help="Report on this bundle, quantized from the same checkpoint.")
    ],
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CKPT]", help="WeNet experiment directory, for the sensitivity.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Take coverage and the sensitivity of static int8 from this calibration profile."),
    ] = None,
    data: Manifests = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Write report.html and report.json to this folder.")
    ] = Path("build/report"),
    split: Split = "dev",
    limit: Limit = 0,
    match: Match = "",
    wer: Annotated[Path | None, typer.Option(help="Reuse this file of u2edge wer --json.")] = None,
    bench: Annotated[Path | None, typer.Option(help="Reuse this file of u2edge bench --json.")] = None,
    rate: RateOption = Rate.auto,
    punctuation: PunctuationOption = Punctuation.keep,
    skip: Annotated[list[Part] | None, typer.Option(help="Leave this measurement out; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Measure latency for at least this long.")] = 20.0,
    processes: Processes = 3,
    probes: Annotated[
        int, typer.Option(min=1, help="Measure the sensitivity on this many recordings, spread evenly.")
    ] = 8,
    threads: Threads = None,
) -> None:
    """One HTML page and its JSON: what quantizing cost and what it gained.

    What is missing is measured; an interrupted report goes on where it stopped.
    """
    from quant.measure.wer.compare import Selection
    from quant.report.make import make_report
    from quant.report.measurements import ReportRequest

    request = ReportRequest(
        baseline=baseline,
        bundle=bundle,
        out=out,
        checkpoint=checkpoint,
        profile=profile,
        selection=Selection(tuple(data), None if split == "all" else split, limit, match) if data else None,
        wer=wer,
        bench=bench,
        rate=rate.value,
        punctuation=punctuation.value,
        skip=frozenset(part.value for part in skip or ()),
        threads=threads,
        seconds=seconds,
        processes=processes,
        probes=probes,
    )
    verdict, page = make_report(request, note)
    print(f"{verdict.word}: {verdict.why}")
    for bar in verdict.bars:
        state = {True: "pass", False: "missed", None: "not measured"}[bar.passed]
        print(f"  {bar.title}: {bar.text} ({bar.limit_text}): {state}")
    print(page)
