"""``u2edge convert``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from rich.console import Console

from edge.export.convert import ConvertOptions, convert
from edge.export.options import ExportOptions

SAMPLES = Path("models/reference/samples")


def run(
    checkpoint: Path, out: Path, storage: str, name: str, dither: float, reencode: bool, audio: Path | None, force: bool
) -> None:
    """Convert, saying what happens; raises EdgeError."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)  # paths may hold [brackets] and :colons:
    if audio is None:
        audio = next(iter(sorted(SAMPLES.glob("*.flac"))), None)
    options = ConvertOptions(
        export=ExportOptions(storage="fp16" if storage == "fp16" else "fp32"),
        name=name,
        dither=dither,
        reencode=reencode,
        overwrite=force,
        audio=audio,
    )
    began = time.perf_counter()
    bundle = convert(checkpoint, out, options, report=lambda line: console.print(line, soft_wrap=True))
    size = sum(p.stat().st_size for p in bundle.directory.iterdir())
    console.print(f"wrote {out} ({size / 1e6:.1f} MB) in {time.perf_counter() - began:.1f} s", soft_wrap=True)
    mode = "" if bundle.manifest.stream.streaming else " --full-context"
    console.print(f"try it: u2edge transcribe AUDIO --bundle {shlex.quote(str(out))}{mode}", soft_wrap=True)
