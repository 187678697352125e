"""``u2edge doctor``: examine this machine and say what to change."""

from __future__ import annotations

from typing import Annotated

import typer

from u2edge.options import DEFAULT_BUNDLE, BundleOption

EXAMPLE = "u2edge doctor --bundle build/reference-int8 --report"


def doctor(
    bundle: BundleOption = DEFAULT_BUNDLE,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write u2edge-doctor.json, to attach to an issue; it names no user.")
    ] = False,
    microphone: Annotated[
        bool, typer.Option("--microphone/--no-microphone", help="Listen to the default microphone for a second.")
    ] = True,
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="Measure each chunk size for this long.")] = 2.0,
) -> None:
    """Examine this machine: processor, engines, microphones, display, bundle, speed; and say what to change.

    Exit code 1 when something prevents transcribing with the bundle, 0 otherwise.
    """
    from u2edge.doctor.report import run

    raise typer.Exit(run(bundle, json, report, microphone, seconds))
