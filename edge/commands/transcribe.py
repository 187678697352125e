"""``u2edge transcribe``: files through the streaming recognizer, as fast as they can be read."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime import AudioError, DecodeOptions, Recognizer, Result, StreamStats, read_blocks
from edge.runtime.threads import thread_count

_BLOCK_S = 0.1  # seconds per accept(): small, so that partial results come as a live stream would bring them


@dataclass(frozen=True)
class TranscribeOptions:
    """What to print."""

    json: bool = False
    partials: bool = True
    threads: int | None = None
    engine: str = "onnxruntime"
    device: str = "CPU"
    precision: str = "f32"


class Printer:
    """Final text goes to standard output; partial text to a line that is overwritten, or to standard error."""

    def __init__(self, options: TranscribeOptions) -> None:
        self.options = options
        self.live = sys.stderr.isatty()
        self._width = 0
        self._last = ""

    def partial(self, file: Path, result: Result) -> None:
        if not self.options.partials or result.text == self._last:
            return
        self._last = result.text
        if self.options.json:
            self._json("partial", file, result.as_dict())
        elif result.text:
            line = f"{_clock(result.end_ms)}  … {result.text}"
            if self.live:
                line = line[-100:]
                print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
                self._width = len(line)
            else:
                print(line, file=sys.stderr, flush=True)

    def final(self, file: Path, result: Result) -> None:
        self._last = ""
        if self.options.json:
            self._json("final", file, result.as_dict())
            return
        self._clear()
        if not result.text:  # special tokens only
            return
        # The times of a line are those of its words; an utterance also holds the silence before them.
        start = result.words[0].start_ms if result.words else result.start_ms
        print(f"{_clock(start)}  {result.text}", flush=True)

    def summary(self, file: Path, stats: StreamStats, utterances: int) -> None:
        if self.options.json:
            self._json("summary", file, stats.as_dict())
            return
        self._clear()
        if not utterances:
            print(f"{file}: no speech recognised", file=sys.stderr)
        line = f"{file}: {stats.audio_s:.1f} s of audio, RTF {stats.rtf:.3f}"
        if stats.first_partial_audio_ms is not None and stats.first_partial_wall_ms is not None:
            line += (
                f", first partial after {stats.first_partial_audio_ms:.0f} ms of audio"
                f" ({stats.first_partial_wall_ms:.0f} ms of computing)"
            )
        line += f", chunk p50 {stats.chunk_percentile(50):.1f} ms, p95 {stats.chunk_percentile(95):.1f} ms"
        print(line, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self.live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0

    def _json(self, kind: str, file: Path, data: dict[str, Any]) -> None:
        print(json.dumps({"type": kind, "file": str(file), **data}, ensure_ascii=False), flush=True)


def run(files: list[Path], bundle: Path, decode: DecodeOptions, options: TranscribeOptions) -> int:
    """Transcribe ``files`` one after another; a bad file is reported and the others go on.

    Returns:
        0, or 1 when a file could not be used.
    """
    began = time.perf_counter()
    recognizer = Recognizer.load(bundle, options.engine, options.device, options.threads, precision=options.precision)
    recognizer.stream(decode)  # options that the bundle does not support are refused before any file is read
    printer = Printer(options)
    if not options.json:
        loaded, backend = (time.perf_counter() - began) * 1000, recognizer.backend
        line = f"{recognizer.manifest.name}: loaded in {loaded:.0f} ms, {thread_count(backend.threads)}, "
        line += f"{backend.name} on {backend.device.upper()}"
        line += "" if backend.precision == "f32" else f" in {backend.precision}"
        print(line + (f" ({recognizer.choice.reason})" if recognizer.choice else ""), file=sys.stderr)
    failed = 0
    for file in files:
        if len(files) > 1 and not options.json:
            print(f"== {file}", flush=True)
        try:
            _transcribe(recognizer, file, decode, printer)
        except AudioError as error:
            failed += 1
            message = str(error) if str(file) in str(error) else f"{file}: {error}"
            print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0


def _transcribe(recognizer: Recognizer, file: Path, decode: DecodeOptions, printer: Printer) -> None:
    stream = recognizer.stream(decode)
    utterances = 0
    for samples, rate in read_blocks(file, _BLOCK_S):
        chunks = stream.stats.chunks
        for result in stream.accept(samples, rate):
            utterances += bool(result.text)
            printer.final(file, result)
        if stream.stats.chunks > chunks:
            printer.partial(file, stream.partial)
    for result in stream.finish():
        utterances += bool(result.text)
        printer.final(file, result)
    printer.summary(file, stream.stats, utterances)


def _clock(ms: float) -> str:
    """Stream time as [h:]mm:ss.t."""
    tenths = int(ms / 100)
    hours, minutes, seconds = tenths // 36000, tenths // 600 % 60, tenths / 10 % 60
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes:02d}:{seconds:04.1f}"
