"""Options of the commands that look at things: doctor and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.cli_options import DEFAULT_BUNDLE, BundleOption


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``. What they run is imported when they run."""
    app.command(epilog="Example: u2edge doctor --bundle build/reference-int8 --report")(doctor)
    app.command(epilog="Example: u2edge inspect build/reference-int8")(inspect)


def doctor(
    bundle: BundleOption = DEFAULT_BUNDLE,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write u2edge-doctor.json, to attach to an issue; it names no user.")
    ] = False,
    microphone: Annotated[
        bool, typer.Option("--microphone/--no-microphone", help="Listen to the default microphone for a second.")
    ] = True,
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long each chunk size is measured.")] = 2.0,
) -> None:
    """Examine this machine: processor, engines, microphones, display, bundle, speed; and say what to change.

    Exit code 1 when something prevents transcribing with the bundle, 0 otherwise.
    """
    from edge.commands.doctor import run

    raise typer.Exit(run(bundle, json, report, microphone, seconds))


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Say what a bundle is: model, precisions, chunk sizes, features, experts, calibration, and whether it is whole.

    Exit code 1 when a file is damaged or missing, 0 otherwise.
    """
    from edge.commands.inspect import run

    raise typer.Exit(run(bundle, json))
