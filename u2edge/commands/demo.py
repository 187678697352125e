"""``u2edge demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.runtime.engines.config import EngineConfig
from u2edge.options import (
    DEFAULT_BUNDLE,
    BundleOption,
    ChannelOption,
    ChunkMs,
    Device,
    DeviceOption,
    Engine,
    EngineOption,
    LeftChunks,
    Reencode,
    Rescoring,
    Threads,
)

EXAMPLE = "u2edge demo --chunk-ms 320"
_ENGINE = {"engine", "engine_device", "threads"}  # options that make up one setting


def demo(
    context: typer.Context,
    audio: Annotated[
        list[Path] | None, typer.Argument(metavar="[AUDIO]...", help="Play these files instead of the microphone.")
    ] = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    device: Annotated[
        str | None,
        typer.Option(help="Use this microphone, by name or number; 'none' plays the samples. [default: the system's]"),
    ] = None,
    channel: ChannelOption = None,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = 16,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    engine: EngineOption = Engine.onnxruntime,
    engine_device: DeviceOption = Device.CPU,
    threads: Threads = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Show a second bundle that hears the same audio.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record what is heard: WAV, and the text as TXT, SRT and JSON.")
    ] = None,
    tui: Annotated[bool, typer.Option("--tui", help="Stay in the terminal, even where a window can be shown.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the window remembers of the last time.")] = False,
) -> None:
    """Recognise speech live, in a window or the terminal: from the microphone, else from bundled samples."""
    from demo import launch
    from demo.settings import Settings

    settings = Settings(
        bundle=bundle,
        compare=compare,
        engine=EngineConfig(engine.value, engine_device.value, threads),
        chunk_ms=chunk_ms,
        left_chunks=left_chunks,
        rescoring=rescoring,
        reencode=reencode,
        channel=channel,
    )
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    given = {"engine" if name in _ENGINE else name for name in given}
    raise typer.Exit(launch.run(settings, audio or [], device, record, tui, given, fresh))
