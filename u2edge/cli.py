"""The ``u2edge`` command. Each command imports what it needs when it runs: a device without torch can transcribe, a
machine without a microphone can convert."""

from __future__ import annotations

import io
import sys
from typing import Annotated, NoReturn

import typer

from edge.runtime.errors import EdgeError
from edge.system.versions import own_version
from u2edge.commands import (
    bench,
    calibrate,
    convert,
    demo,
    doctor,
    inspect,
    merge,
    quantize,
    report,
    transcribe,
    wer,
)

_EXTRAS = {
    "torch": "convert",
    "onnx": "convert",
    "yaml": "convert",
    "safetensors": "convert",
    "neural_compressor": "quant",
    "torchao": "quant",
    "jinja2": "quant",
    "jiwer": "wer",
    "openvino": "openvino",
    "sounddevice": "demo",
}
"""Module -> the extra that brings it."""

_COMMANDS = {"quantize": "quant", "report": "quant"}
"""Command -> the extra that brings all that it needs, where its modules alone would name a smaller one first."""

app = typer.Typer(
    name="u2edge",
    help="Streaming speech recognition with U2++ MoE models on the edge.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(own_version())
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Streaming speech recognition with U2++ MoE models on the edge."""


# In the order of the help: what to do first comes first.
app.command(epilog=f"Example: {demo.EXAMPLE}")(demo.demo)
app.command(epilog=f"Example: {transcribe.EXAMPLE}")(transcribe.transcribe)
app.command(epilog=f"Example: {doctor.EXAMPLE}")(doctor.doctor)
app.command(epilog=f"Example: {inspect.EXAMPLE}")(inspect.inspect)
app.command(epilog=f"Example: {convert.EXAMPLE}")(convert.convert)
app.command(epilog=f"Example: {calibrate.EXAMPLE}")(calibrate.calibrate)
app.command(epilog=f"Example: {merge.EXAMPLE}")(merge.merge)
app.command(epilog=f"Example: {quantize.EXAMPLE}")(quantize.quantize)
app.command(epilog=f"Example: {wer.EXAMPLE}")(wer.wer)
app.command(epilog=f"Example: {bench.EXAMPLE}")(bench.bench)
app.command(epilog=f"Example: {report.EXAMPLE}")(report.report)


def main() -> None:
    """Entry point: one line for an error a user can meet, and an exit code for scripts."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character gets its code
    try:
        app()
    except EdgeError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # files that cannot be read, a full disk
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        extra = extra and next((_COMMANDS[word] for word in sys.argv[1:2] if word in _COMMANDS), extra)
        if extra is None:
            raise
        _fail(f"this command needs {error.name}; type: pip install 'u2edge[{extra}]'")


def _fail(message: str) -> NoReturn:
    """Print one line, whatever control characters a damaged file or its name put into ``message``, and exit with 1."""
    line = "".join(c if c.isprintable() else " " for c in message)
    print(f"error: {line}", file=sys.stderr)
    sys.exit(1)
