"""``u2edge inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "u2edge inspect build/reference-int8"


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Say what a bundle is: model, precisions, chunk sizes, features, experts, calibration, and whether it is whole.

    Exit code 1 when a file is damaged or missing, 0 otherwise.
    """
    from u2edge.inspection import run

    raise typer.Exit(run(bundle, json))
