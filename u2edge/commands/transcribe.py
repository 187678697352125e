"""``u2edge transcribe``: files through the streaming recognizer, as fast as they can be read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.runtime.engines.config import EngineConfig
from u2edge.options import (
    DEFAULT_BUNDLE,
    Beam,
    BundleOption,
    ChannelOption,
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
from u2edge.printer import Printer

if TYPE_CHECKING:
    from edge.runtime import DecodeOptions, Recognizer

EXAMPLE = "u2edge transcribe models/reference/samples/*.flac --chunk-ms 320"
_BLOCK_S = 0.1  # seconds per accept(): small, so that partial results come as a live stream would bring them


def transcribe(
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO...", help="Audio files of any rate and channels.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    chunk_ms: ChunkMs = None,
    full_context: FullContext = False,
    left_chunks: LeftChunks = -1,
    rescoring: Rescoring = True,
    reencode: Reencode = None,
    beam: Beam = 10,
    endpoint: Annotated[
        bool, typer.Option("--endpoint/--no-endpoint", help="Start a new line after a pause of 1 s or after 20 s.")
    ] = True,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line: partial, final, summary.")
    ] = False,
    nbest: Annotated[int, typer.Option(min=1, help="List this many hypotheses per final result with --json.")] = 1,
    partials: Annotated[
        bool, typer.Option("--partials/--no-partials", help="Show text while it is still changing.")
    ] = True,
    channel: ChannelOption = None,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    threads: Threads = None,
) -> None:
    """Transcribe audio files, chunk by chunk, with partial results on the way."""
    from edge.runtime import AudioError, DecodeOptions, EndpointOptions, Recognizer

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
    began = time.perf_counter()
    recognizer = Recognizer.load(bundle, EngineConfig(engine.value, device.value, threads, precision.value))
    recognizer.prepare(decode)  # options that the bundle does not support are refused before any file is read
    printer = Printer(json, partials)
    if not json:
        print(_loaded(recognizer, time.perf_counter() - began), file=sys.stderr)
    failed = 0
    # One bad file is reported, and the others go on.
    for file in audio:
        if len(audio) > 1 and not json:
            print(f"== {file}", flush=True)
        try:
            _transcribe(recognizer, file, decode, printer, channel)
        except AudioError as error:
            failed += 1
            message = str(error) if str(file) in str(error) else f"{file}: {error}"
            print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


def _loaded(recognizer: Recognizer, seconds: float) -> str:
    """What computes, and how it was chosen."""
    from edge.runtime.engines.threads import thread_count

    backend = recognizer.backend
    line = f"{recognizer.manifest.name}: loaded in {1000 * seconds:.0f} ms, {thread_count(backend.threads)}, "
    line += f"{backend.name} on {backend.device}"
    line += "" if backend.precision == "f32" else f" in {backend.precision}"
    return line + (f" ({recognizer.choice.reason})" if recognizer.choice else "")


def _transcribe(
    recognizer: Recognizer, file: Path, decode: DecodeOptions, printer: Printer, channel: int | None
) -> None:
    from edge.runtime import Clip, DamagedAudio, read_blocks

    stream = recognizer.stream(decode)
    utterances, note, damage = 0, "", None
    source = Clip(file, channel=channel)
    try:
        for samples, rate in read_blocks(source, _BLOCK_S, lambda line: print(f"note: {line}", file=sys.stderr)):
            chunks = stream.stats.chunks
            for result in stream.accept(samples, rate):
                utterances += bool(result.text)
                printer.final(file, result)
            if stream.stats.chunks > chunks:
                printer.partial(file, stream.partial)
            if stream.channel_note and not note:
                note = stream.channel_note
                print(f"note: {file}: {note}", file=sys.stderr)
    except DamagedAudio as error:  # what was heard before it is printed
        damage = error
    for result in stream.finish():
        utterances += bool(result.text)
        printer.final(file, result)
    printer.summary(file, stream.stats, utterances)
    if damage is not None:
        raise damage
