"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_BUNDLE = Path("models/reference-bundle")


BundleOption = Annotated[
    Path, typer.Option("--bundle", "-b", help="Bundle directory, as u2edge convert writes it.", show_default=True)
]
ChunkMs = Annotated[
    float | None,
    typer.Option(help="Milliseconds of audio per chunk, a multiple of the encoder frame (40 ms). [default: 640]"),
]
FullContext = Annotated[
    bool, typer.Option("--full-context", help="Encode each file at once: most accurate, no partial results.")
]
LeftChunks = Annotated[
    int, typer.Option(help="Chunks of history that attention sees; -1: all of the utterance, 0: none.")
]
Rescoring = Annotated[
    bool, typer.Option("--rescoring/--no-rescoring", help="Let the attention decoders choose the final text.")
]
Reencode = Annotated[
    bool | None,
    typer.Option(
        "--reencode/--no-reencode",
        help="Encode a finished utterance again in full context before rescoring. [default: as the bundle says]",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Threads of the inference engine. [default: physical cores, at most 4]"),
]
