"""``u2edge calibrate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge.system.commandline import command_line
from edge.system.console import note, table_console
from u2edge.options import REFERENCE, beside

EXAMPLE = "u2edge calibrate models/reference --data speech/manifest.jsonl --balance 200"

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="Listen to this manifest (JSONL), or folder with one or with audio; repeatable. [default: the "
        "checkpoint's samples]",
    ),
]


def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="WeNet experiment directory.", show_default=True)
    ] = REFERENCE,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the profile to this file. [default: build/<checkpoint>.profile]"),
    ] = None,
    split: Annotated[str, typer.Option(help="Take only lines of this split, or without one; '' takes all.")] = "train",
    limit: Annotated[
        int, typer.Option(min=0, help="Take at most this many recordings, evenly spread; 0 takes all.")
    ] = 0,
    match: Annotated[str, typer.Option(help="Take only recordings with this in their path.")] = "",
    dither: Annotated[
        float,
        typer.Option(
            min=0.0, max=100.0, help="Add this much noise, in 16-bit steps, as the recognizer of the bundle will."
        ),
    ] = 0.0,
    chunk: Annotated[
        list[int] | None,
        typer.Option(
            help="Make a pass in chunks of this many encoder frames, -1 in full context; repeatable. [default: 16 "
            "and -1]"
        ),
    ] = None,
    balance: Annotated[
        int,
        typer.Option(min=0, help="Choose this many recordings so that the rarest expert is met often; 0 takes all."),
    ] = 0,
    shard: Annotated[
        str,
        typer.Option(metavar="I/N", help="Take every N-th recording from the I-th; u2edge merge joins the profiles."),
    ] = "1/1",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave recordings out that cannot be used.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an unfinished run.")] = False,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Give torch this many threads.")] = 1,
) -> None:
    """Measure what every layer and every expert sees, for int8.

    Ctrl-C is safe: the same command continues.
    """
    import torch

    from calibration.balance import balance as choose
    from calibration.balance import table
    from calibration.corpus import parse_shard, read_corpus, write_manifest
    from calibration.profile import CalibrationOptions, record_command
    from calibration.run import Interrupted, interruptible, next_command, summary
    from calibration.run import calibrate as run
    from edge.model.checkpoint import load_experiment

    console, part = table_console(markup=False), parse_shard(shard)
    out = out or _default_profile(checkpoint, part)
    options = CalibrationOptions(dither=dither)
    if chunk:
        options = CalibrationOptions(chunks=tuple(chunk), dither=dither)
    corpus = read_corpus(
        data or [_samples(checkpoint)], split=split or None, limit=limit, match=match, check_files=not skip_bad
    )
    torch.set_num_threads(threads)
    try:
        with interruptible():
            experiment = load_experiment(checkpoint)
            for line in experiment.notes:
                note(line)
            if balance:
                cache = out.with_name(out.name + ".routing")
                if restart:
                    cache.unlink(missing_ok=True)
                choice = choose(experiment, corpus, balance, cache, options, skip_bad=skip_bad, report=note)
                table(choice, console)
                corpus, manifest = choice.utterances, out.with_name(out.name + ".jsonl")
                write_manifest(corpus, manifest)
                note(f"wrote {manifest}")
            profile = run(experiment, corpus, out, options, shard=part, skip_bad=skip_bad, restart=restart, report=note)
    except Interrupted as stop:
        again = "type the same command" + (" without --restart" if restart else "")
        note(f"stopped ({stop}); what was done is kept: {again} to continue")
        raise typer.Exit(stop.code) from None
    record_command(out, command_line())
    summary(profile, console)
    note(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if part[1] == 1:
        note(next_command(checkpoint, out))
    else:
        note(f"next: u2edge merge {shlex.quote(str(out))} OTHER_SHARDS... -o PROFILE")


def _default_profile(checkpoint: Path, shard: tuple[int, int]) -> Path:
    """Shards do not write over each other."""
    return beside(checkpoint, f".{shard[0]}of{shard[1]}.profile" if shard[1] > 1 else ".profile")


def _samples(checkpoint: Path) -> Path:
    """Recordings beside the checkpoint; raises CorpusError."""
    from calibration.corpus import CorpusError

    folder = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "samples"
    if not folder.is_dir():
        raise CorpusError(f"{folder}: expected recordings beside the checkpoint, found none; name some with --data")
    return folder
