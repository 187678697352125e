"""``u2edge merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.system.commandline import command_line
from edge.system.console import note, table_console

EXAMPLE = "u2edge merge build/a.profile build/b.profile -o build/all.profile"


def merge(
    profiles: Annotated[list[Path], typer.Argument(metavar="PROFILE...", help="Profiles of different recordings.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Write the profile of all of them together to this file.")
    ],
) -> None:
    """Join the profiles of several machines: as if one had listened to everything."""
    from calibration.profile import Profile, record_command
    from calibration.profile import merge as join
    from calibration.run import next_command, summary

    profile = join([Profile.load(path) for path in profiles])
    profile.save(out)
    record_command(out, command_line())
    summary(profile, table_console(markup=False))
    note(f"wrote {out}")
    note(next_command(Path(profile.header.checkpoint), out))
