"""Results of ``u2edge transcribe``, for people or as JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edge.runtime import Result, StreamStats


class Printer:
    """Final text goes to standard output; partial text to a line that is overwritten, or to standard error."""

    def __init__(self, as_json: bool = False, partials: bool = True) -> None:
        self._as_json, self._partials = as_json, partials
        self.live = sys.stderr.isatty()
        self._width = 0
        self._last = ""

    def partial(self, file: Path, result: Result) -> None:
        if not self._partials or result.text == self._last:
            return
        self._last = result.text
        if self._as_json:
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
        if self._as_json:
            self._json("final", file, result.as_dict())
            return
        self._clear()
        if not result.text:  # special tokens only
            return
        # The times of a line are those of its words; an utterance also holds the silence before them.
        start = result.words[0].start_ms if result.words else result.start_ms
        print(f"{_clock(start)}  {result.text}", flush=True)

    def summary(self, file: Path, stats: StreamStats, utterances: int) -> None:
        if self._as_json:
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


def _clock(ms: float) -> str:
    """Stream time as [h:]mm:ss.t."""
    tenths = int(ms / 100)
    hours, minutes, seconds = tenths // 36000, tenths // 600 % 60, tenths / 10 % 60
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes:02d}:{seconds:04.1f}"
