"""The demo in a terminal: text that firms up while one speaks, level, speed and busy experts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from demo.sources import Block, Microphone, MicrophoneError, play
from edge.runtime import DecodeOptions, EdgeError, Recognizer, Result, Stream

SAMPLES = Path("models/reference/samples")
_BARS = " ▁▂▃▄▅▆▇█"


def run(
    files: list[Path],
    bundle: Path,
    decode: DecodeOptions,
    device: str | None,
    threads: int | None,
    engine: str = "onnxruntime",
    engine_device: str = "CPU",
) -> int:
    """Run until the audio ends or Ctrl-C; ``device`` is the microphone. Returns the exit code."""
    recognizer = Recognizer.load(bundle, engine, engine_device, threads)
    recognizer.stream(decode)  # refuse wrong options before opening a microphone
    console = Console(highlight=False)
    plan = recognizer.stream(decode).plan
    console.print(
        f"[bold]{recognizer.manifest.name}[/]  {plan.chunk_ms:g} ms chunks, "
        f"{recognizer.backend.threads} threads, {recognizer.backend.name} on {recognizer.backend.device.upper()}"
    )
    try:
        if not files and device != "none":
            try:
                return _listen(console, recognizer, decode, device)
            except MicrophoneError as error:
                if device is not None:
                    raise
                console.print(f"[yellow]{error}[/]", soft_wrap=True)
        return _play(console, recognizer, decode, files or sorted(SAMPLES.glob("*.flac")))
    except KeyboardInterrupt:
        console.print("stopped")
        return 0


def _listen(console: Console, recognizer: Recognizer, decode: DecodeOptions, device: str | None) -> int:
    microphone = Microphone(device)
    console.print(f"listening to {microphone.name} at {microphone.rate} Hz; Ctrl-C ends", soft_wrap=True)
    try:
        _show(console, recognizer.stream(decode), microphone)
    finally:
        microphone.close()
    return 0


def _play(console: Console, recognizer: Recognizer, decode: DecodeOptions, files: list[Path]) -> int:
    if not files:
        raise EdgeError(
            f"expected a microphone or audio files, found none in {SAMPLES}; type: u2edge demo recording.wav"
        )
    for file in files:
        console.print(f"playing [bold]{file}[/] at real-time pace", soft_wrap=True)
        text = file.with_suffix(".txt")
        if text.is_file():
            console.print(f"  spoken:     {text.read_text(encoding='utf-8').strip()}", style="dim", soft_wrap=True)
        _show(console, recognizer.stream(decode), play(file))
    return 0


def _show(console: Console, stream: Stream, blocks: Iterable[Block]) -> None:
    """Feed ``blocks`` to ``stream`` and draw; finals scroll up, the current utterance stays at the bottom."""
    view = _View(console, stream)
    # Without a terminal there is nothing to overwrite: finals and changed partials are printed as lines.
    with Live(console=console, refresh_per_second=12, transient=True) if console.is_terminal else _NoLive() as live:
        for block in blocks:
            for result in stream.accept(block.samples, block.rate):
                view.final(result)
            view.draw(live, block)
        for result in stream.finish():
            view.final(result)
    stats = stream.stats
    line = f"  {stats.audio_s:.1f} s, RTF {stats.rtf:.3f}, chunk p50 {stats.chunk_percentile(50):.1f} ms"
    if stats.first_partial_audio_ms is not None:
        line += f", first text after {stats.first_partial_audio_ms:.0f} ms of audio"
    console.print(line, style="dim", soft_wrap=True)


class _NoLive:
    """Stands in for rich's Live when output is not a terminal."""

    def __enter__(self) -> _NoLive:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


class _View:
    """What is on screen of one stream."""

    def __init__(self, console: Console, stream: Stream) -> None:
        self.console, self.stream = console, stream
        self._printed = ""

    def final(self, result: Result) -> None:
        self._printed = ""
        self.console.print(Text("  recognised: ", style="green").append(result.text, style="bold"), soft_wrap=True)

    def draw(self, live: Live | _NoLive, block: Block) -> None:
        text = self.stream.partial.text
        if isinstance(live, _NoLive):
            if text and text != self._printed:
                self._printed = text
                self.console.print(f"            … {text}", soft_wrap=True)
            return
        samples = np.asarray(block.samples, dtype=np.float32)
        level = 20 * np.log10(float(np.sqrt(np.mean(samples**2))) + 1e-6) if len(samples) else -120.0
        filled = int(np.clip((level + 60) / 60 * 20, 0, 20))
        stats = self.stream.stats
        meters = Text("  ").append("█" * filled, style="green" if level < -3 else "red").append("·" * (20 - filled))
        meters.append(
            f" {level:4.0f} dB   chunk {stats.chunk_percentile(50):.0f} ms   RTF {stats.rtf:.2f}"
            f"   {block.behind_s:.1f} s behind",
            style="dim",
        )
        lines = [Text("  … ").append(text, style="dim"), meters]
        counts = self.stream.expert_counts
        if counts is not None:
            experts = Text("  experts ", no_wrap=True, overflow="crop")
            lines.append(experts.append(_expert_bars(counts), style="cyan"))
        live.update(Group(*lines))


def _expert_bars(counts: NDArray[np.int64]) -> str:
    """One bar per expert and layer: the share of the last chunk's frames it got, up to 1 / 2."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    index = np.minimum((shares * 2 * (len(_BARS) - 1)).round().astype(int), len(_BARS) - 1)
    return " ".join("".join(_BARS[i] for i in row) for row in index)
