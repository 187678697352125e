"""``u2edge convert``."""

from __future__ import annotations

import enum
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from edge.system.assets import sample_files
from edge.system.console import note
from u2edge.options import Force, Recommend

EXAMPLE = "u2edge convert exp/u2pp_moe -o build/u2pp-bundle"


class Storage(enum.StrEnum):
    """How weights lie on disk; arithmetic is fp32 either way."""

    fp32 = "fp32"
    fp16 = "fp16"


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="WeNet experiment directory, or its final.pt.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Write the bundle to this directory.")],
    storage: Annotated[
        Storage, typer.Option(help="Store weights so; fp16 halves the files and rounds the weights.")
    ] = Storage.fp32,
    name: Annotated[
        str, typer.Option(help="Call the bundle this in its manifest. [default: the experiment's folder]")
    ] = "",
    dither: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=100.0,
            help="Let the recognizer add this much noise, in 16-bit steps; it helps with digital silence.",
        ),
    ] = 0.0,
    reencode: Recommend = False,
    audio: Annotated[
        Path | None,
        typer.Option(help="Compare with torch on this recording. [default: a sample recording, else noise]"),
    ] = None,
    force: Force = False,
) -> None:
    """Convert a WeNet checkpoint into a bundle, and prove that it computes the same."""
    from edge.export.convert import ConvertOptions
    from edge.export.convert import convert as convert_checkpoint
    from edge.export.options import ExportOptions

    options = ConvertOptions(
        export=ExportOptions(storage=storage.value),
        name=name,
        dither=dither,
        reencode=reencode,
        overwrite=force,
        audio=audio or next(iter(sample_files()), None),
    )
    began = time.perf_counter()
    bundle = convert_checkpoint(checkpoint, out, options, report=note)
    size = sum(p.stat().st_size for p in bundle.directory.iterdir())
    note(f"wrote {out} ({size / 1e6:.1f} MB) in {time.perf_counter() - began:.1f} s")
    mode = "" if bundle.manifest.stream.streaming else " --full-context"
    note(f"try it: u2edge transcribe AUDIO --bundle {shlex.quote(str(out))}{mode}")
