"""``u2edge quantize``."""

from __future__ import annotations

import enum
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from edge.system.commandline import command_line
from edge.system.console import note
from u2edge.options import (
    REFERENCE,
    Force,
    Punctuation,
    PunctuationOption,
    Rate,
    RateOption,
    Recommend,
    Threads,
    beside,
)

EXAMPLE = "u2edge quantize models/reference --tune build/dev-digits --max-drop 0.2"


class Scheme(enum.StrEnum):
    """What becomes of weights and activations."""

    static = "static"
    static16 = "static16"
    dynamic = "dynamic"
    weight8 = "weight8"
    weight4 = "weight4"


class Observer(enum.StrEnum):
    """How static activation scales are found."""

    minmax = "minmax"
    mse = "mse"
    kl = "kl"


def quantize(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="WeNet experiment directory.", show_default=True)
    ] = REFERENCE,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Take the scales of static and static16 from this file of u2edge calibrate. [default: "
            "build/<checkpoint>.profile, else "
            "<checkpoint>/calibration.profile]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the bundle to this directory. [default: build/<checkpoint>-int8]"),
    ] = None,
    scheme: Annotated[
        Scheme,
        typer.Option(
            help="static: int8 with scales from calibration. static16: activations in 16 bits, slower, every engine "
            "writes the same. dynamic: activation scales per call. "
            "weight8, weight4: only weights (experts in 4 bits)."
        ),
    ] = Scheme.static,
    observer: Annotated[
        Observer,
        typer.Option(
            help="Find static scales so: minmax takes the extremes, mse the range of least squared error (kl is its "
            "former name)."
        ),
    ] = Observer.minmax,
    tune: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MANIFEST", help="Search on these recordings (with texts) until the loss is small; repeatable."
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0.0, help="Accept this loss with --tune, in points of the error rate, absolute.")
    ] = 0.2,
    rate: RateOption = Rate.auto,
    punctuation: PunctuationOption = Punctuation.keep,
    min_agreement: Annotated[
        float,
        typer.Option(min=0.0, max=100.0, help="Want this percentage of frames to keep their experts with --tune."),
    ] = 97.0,
    split: Annotated[str, typer.Option(help="Tune only on lines of this split, or without one; '' takes all.")] = "dev",
    limit: Annotated[int, typer.Option(min=0, help="Tune on at most this many recordings; 0 takes all.")] = 0,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Leave this module path in fp32, with all below it; repeatable."),
    ] = None,
    coverage_share: Annotated[
        float,
        typer.Option(
            min=0.0, max=100.0, help="Let an expert borrow statistics when it met fewer percent of the frames."
        ),
    ] = 0.5,
    coverage_rows: Annotated[
        float,
        typer.Option(
            min=0.0, help="Let an expert borrow, too, when it met fewer frames than this times its hidden units."
        ),
    ] = 2.0,
    name: Annotated[
        str, typer.Option(help="Call the bundle this in its manifest. [default: <checkpoint>-<scheme>]")
    ] = "",
    dither: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=100.0, help="Let the recognizer add this much noise, in 16-bit steps. [default: the profile's]"
        ),
    ] = None,
    reencode: Recommend = False,
    audio: Annotated[
        Path | None,
        typer.Option(help="Compare with torch on this recording. [default: one of the checkpoint's samples]"),
    ] = None,
    threads: Threads = None,
    force: Force = False,
) -> None:
    """Write an int8 bundle of a checkpoint, each expert with scales of its own.

    Layers that stay fp32 are stored as fp16. Exit code 1 when --tune did not reach its budget; the best bundle is
    written all the same.
    """
    from quant.provenance import summary
    from quant.quantize import QuantizeRequest
    from quant.quantize import quantize as run

    began = time.perf_counter()
    request = QuantizeRequest(
        checkpoint=checkpoint,
        out=out or beside(checkpoint, "-int8" if scheme is Scheme.static else f"-{scheme.value}"),
        profile=profile,
        made_profile=beside(checkpoint, ".profile"),
        scheme=scheme.value,
        observer="mse" if observer is Observer.kl else observer.value,
        tune=tuple(tune or ()),
        max_drop=max_drop,
        rate=rate.value,
        punctuation=punctuation.value,
        min_agreement=min_agreement / 100,
        split=split or None,
        limit=limit,
        keep=tuple(keep or ()),
        coverage_share=coverage_share / 100,
        coverage_rows=coverage_rows,
        name=name,
        dither=dither,
        reencode=reencode,
        audio=audio,
        threads=threads,
        force=force,
        command=command_line(),
    )
    done = run(request, note)
    for line in summary(done.plan, done.bundle):
        note(line)
    note(f"wrote {request.out} in {time.perf_counter() - began:.0f} s")
    note(f"next: u2edge transcribe AUDIO --bundle {shlex.quote(str(request.out))}")
    if done.tuning is not None and not done.tuning.accepted:
        note(
            f"tuning: expected at most {max_drop:g} points of {done.tuning.scored.upper()} and {min_agreement:g} % of "
            f"frames with the same experts; the best of {len(done.tuning.trials)} trials was written"
        )
        raise typer.Exit(1)
