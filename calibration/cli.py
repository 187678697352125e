"""Options of the commands: calibrate and merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="Manifest (JSONL), or folder with one or with audio; repeatable. [default: the checkpoint's samples]",
    ),
]


def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="WeNet experiment directory.", show_default=True)
    ] = Path("models/reference"),
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="The profile. [default: build/<checkpoint>.profile]")
    ] = None,
    split: Annotated[str, typer.Option(help="Only lines of this split, or without one; '' for all.")] = "train",
    limit: Annotated[int, typer.Option(min=0, help="At most this many recordings, evenly spread; 0: all.")] = 0,
    match: Annotated[str, typer.Option(help="Only recordings with this in their path.")] = "",
    dither: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Noise the recognizer adds, in 16-bit steps, as in the bundle.")
    ] = 0.0,
    chunk: Annotated[
        list[int] | None,
        typer.Option(help="Encoder frames per chunk of a pass, -1: full context; repeatable. [default: 16 and -1]"),
    ] = None,
    balance: Annotated[
        int,
        typer.Option(min=0, help="Choose this many recordings so that the rarest expert is met often; 0: take all."),
    ] = 0,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Every N-th recording from the I-th; see merge.")] = "1/1",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave recordings out that cannot be used.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an unfinished run.")] = False,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of torch.")] = 1,
) -> None:
    """Measure what every layer and every expert sees, for int8.

    Ctrl-C is safe: the same command continues.
    """
    from calibration.commands import Request, run_calibrate

    request = Request(
        checkpoint=checkpoint,
        data=tuple(data or ()),
        out=out,
        split=split or None,
        limit=limit,
        match=match,
        dither=dither,
        chunks=tuple(chunk or ()),
        balance=balance,
        shard=shard,
        skip_bad=skip_bad,
        restart=restart,
        threads=threads,
    )
    raise typer.Exit(run_calibrate(request))


def merge(
    profiles: Annotated[list[Path], typer.Argument(metavar="PROFILE...", help="Profiles of different recordings.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The profile of all of them together.")],
) -> None:
    """Join the profiles of several machines: as if one had listened to everything."""
    from calibration.commands import run_merge

    run_merge(profiles, out)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``. What they run is imported when they run."""
    app.command(epilog="Example: u2edge calibrate models/reference --data speech/manifest.jsonl --balance 200")(
        calibrate
    )
    app.command(epilog="Example: u2edge merge build/a.profile build/b.profile -o build/all.profile")(merge)
