"""The ``u2edge`` command. Each subcommand imports what it needs when it runs, so that a device without torch
can transcribe and a machine without a microphone can convert."""

from __future__ import annotations

import enum
import importlib
import io
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge.cli_options import (
    DEFAULT_BUNDLE,
    BundleOption,
    ChunkMs,
    Device,
    DeviceOption,
    Engine,
    EngineOption,
    FullContext,
    LeftChunks,
    Precision,
    PrecisionOption,
    Reencode,
    Rescoring,
    Threads,
)
from edge.runtime.errors import EdgeError

app = typer.Typer(
    name="u2edge",
    help="Streaming speech recognition with U2++ MoE models on the edge.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Storage(enum.StrEnum):
    """How weights lie on disk; arithmetic is fp32 either way."""

    fp32 = "fp32"
    fp16 = "fp16"


@app.command(epilog="Example: u2edge convert exp/u2pp_moe -o build/u2pp-bundle")
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="WeNet experiment directory, or its final.pt.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new bundle.")],
    storage: Annotated[Storage, typer.Option(help="fp16 halves the files and rounds the weights.")] = Storage.fp32,
    name: Annotated[str, typer.Option(help="Name in the manifest. [default: the experiment's folder]")] = "",
    dither: Annotated[
        float,
        typer.Option(min=0.0, max=100.0, help="Noise the recognizer adds, in 16-bit steps; for digital silence."),
    ] = 0.0,
    reencode: Annotated[
        bool, typer.Option("--reencode", help="Recommend a second pass in full context when an utterance ends.")
    ] = False,
    audio: Annotated[
        Path | None, typer.Option(help="Speech for the parity check. [default: models/reference/samples, else noise]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is already there.")] = False,
) -> None:
    """Convert a WeNet checkpoint into a bundle, and prove that it computes the same."""
    from edge.commands.convert import run

    run(checkpoint, out, storage.value, name, dither, reencode, audio, force)


@app.command(epilog="Example: u2edge transcribe models/reference/samples/*.flac --chunk-ms 320")
def transcribe(
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO...", help="Audio files of any rate, mono or stereo.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    chunk_ms: ChunkMs = None,
    full_context: FullContext = False,
    left_chunks: LeftChunks = -1,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept by the CTC search and rescored.")] = 10,
    endpoint: Annotated[
        bool, typer.Option("--endpoint/--no-endpoint", help="Start a new line after a pause of 1 s or after 20 s.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line: partial, final, summary.")] = False,
    nbest: Annotated[int, typer.Option(min=1, help="Hypotheses listed per final result with --json.")] = 1,
    partials: Annotated[
        bool, typer.Option("--partials/--no-partials", help="Show text while it is still changing.")
    ] = True,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    threads: Threads = None,
) -> None:
    """Transcribe audio files, chunk by chunk, with partial results on the way."""
    from edge.commands.transcribe import TranscribeOptions, run
    from edge.runtime import DecodeOptions, EndpointOptions

    decode = DecodeOptions(
        chunk_ms=chunk_ms,
        full_context=full_context,
        left_chunks=left_chunks,
        rescoring=rescoring,
        reencode=reencode,
        beam=beam,
        nbest=nbest,
        endpoint=EndpointOptions() if endpoint else None,
    )
    options = TranscribeOptions(json, partials, threads, engine.value, device.value, precision.value)
    raise typer.Exit(run(audio, bundle, decode, options))


@app.command(epilog="Example: u2edge demo --chunk-ms 320")
def demo(
    context: typer.Context,
    audio: Annotated[
        list[Path] | None, typer.Argument(metavar="[AUDIO]...", help="Play these files instead of the microphone.")
    ] = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    device: Annotated[
        str | None, typer.Option(help="Microphone by name or number; 'none' plays the samples. [default: system's]")
    ] = None,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = 16,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    engine: EngineOption = Engine.onnxruntime,
    engine_device: DeviceOption = Device.CPU,
    threads: Threads = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="A second bundle that hears the same audio.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record what is heard: WAV, and the text as TXT, SRT and JSON.")
    ] = None,
    tui: Annotated[bool, typer.Option("--tui", help="Stay in the terminal, even where a window can be shown.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the window remembers of the last time.")] = False,
) -> None:
    """Recognise speech live, in a window or the terminal: from the microphone, else from bundled samples."""
    # By name: edge imports none of the other folders.
    settings = importlib.import_module("demo.settings").Settings(
        bundle, compare, engine.value, engine_device.value, threads, chunk_ms, left_chunks, rescoring, reencode
    )
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    given = {{"device": "microphone", "engine_device": "device"}.get(name, name) for name in given}
    launch = importlib.import_module("demo.launch")
    raise typer.Exit(launch.run(settings, audio or [], device, record, tui, given, fresh))


for _module in ("edge.cli_tools", "calibration.cli", "quant.cli", "quant.cli_measure", "quant.cli_report"):
    # By name, as edge imports none of the other folders; these modules hold options only.
    importlib.import_module(_module).register(app)


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
        extras = {"torch": "convert", "onnx": "convert", "yaml": "convert", "safetensors": "convert", "jiwer": "wer"}
        extra = extras.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _fail(f"this command needs {error.name}; type: pip install 'u2edge[{extra}]'")


def _fail(message: str) -> NoReturn:
    """Print one line, whatever control characters a damaged file or its name put into ``message``, and exit with 1."""
    line = "".join(c if c.isprintable() else " " for c in message)
    print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
