"""From sound to text through PortAudio and the demo's session: ``python -m virtual_mic.latency [CHUNK_MS] [TIMES]``.

The samples are spoken into a virtual microphone with pauses between them; what a 12 fps drawer fetches is timed.
A word's delay is from its end in the recording (found by transcribing the file) to the first partial text that has
as many words. Run it in tests/, with the repository on PYTHONPATH.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from places import ROOT

from virtual_mic import Room, missing

BUNDLE, SAMPLES = ROOT / "models/reference-bundle", ROOT / "models/reference/samples"
RATE, PAUSE_S, FRAME_S = 16000, 2.5, 1 / 12


def listen(bundle: str, chunk_ms: float) -> None:
    """The child: prints what the session shows, and when."""
    from demo.events import Final, Meters, Notice, Opened, Partial
    from demo.session.session import Session
    from demo.settings import Settings

    session = Session(Settings(Path(bundle), chunk_ms=chunk_ms, reencode=True))
    session.start()
    session.listen(None)
    while True:
        for event in session.poll():
            row: dict[str, Any] = {"at": time.monotonic(), "event": type(event).__name__}
            if isinstance(event, (Partial, Final)):
                row |= {"text": event.result.text, "lag_ms": event.lag_ms}
            elif isinstance(event, Meters):
                row |= {"dropped": event.dropped_blocks, "cpu": event.cpu_percent}
            elif isinstance(event, Notice):
                row |= {"text": event.text}
            elif not isinstance(event, Opened):
                continue
            print(json.dumps(row), flush=True)
        time.sleep(FRAME_S)


def wave(times: int) -> tuple[np.ndarray[Any, Any], list[list[float]], list[float]]:
    """Samples (n,) int16, word ends of every recording in s, and where its sound ends."""
    import soundfile

    from edge.runtime import DecodeOptions, Recognizer

    recognizer = Recognizer.load(BUNDLE)
    pieces, words, position = [np.zeros(RATE, np.int16)], [], RATE
    for path in sorted(SAMPLES.glob("human*.flac")) * times:
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE
        results = list(recognizer.transcribe(path, options=DecodeOptions(full_context=True)))
        words.append([position / RATE + w.end_ms / 1000 for r in results for w in r.words])
        silence = np.zeros(int(PAUSE_S * RATE), np.int16)
        pieces += [samples, silence]
        position += len(samples) + len(silence)
    return np.concatenate(pieces), words, [position / RATE]


def main() -> None:
    if missing():
        sys.exit(missing())
    chunk_ms = float(sys.argv[1]) if len(sys.argv) > 1 else 640.0
    sound, words, (end,) = wave(int(sys.argv[2]) if len(sys.argv) > 2 else 8)
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder))
        desk = room.add("desk", sound, RATE)
        command = [sys.executable, "-m", "virtual_mic.latency", "--listen", str(BUNDLE), str(chunk_ms)]
        child = subprocess.Popen(command, env=room.environment(), stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        rows: list[dict[str, Any]] = []
        began = 0.0
        for line in child.stdout:
            row = json.loads(line)
            rows.append(row)
            if row["event"] == "Opened" and not began:
                time.sleep(1.0)
                began = desk.speak()
            if began and row["at"] > began + end + 1:
                break
        child.kill()
        child.wait()
    report(rows, words, began, chunk_ms)


def report(rows: list[dict[str, Any]], words: list[list[float]], began: float, chunk_ms: float) -> None:
    delays: list[float] = []
    starts = [own[0] for own in words]
    for i, own in enumerate(words):
        until = began + (starts[i + 1] - 0.3 if i + 1 < len(starts) else 1e9)
        shown = [r for r in rows if r["event"] == "Partial" and began + own[0] - 0.6 < r["at"] < until]
        for count, word_end in enumerate(own, 1):
            first = next((r["at"] for r in shown if len(r["text"].split()) >= count), None)
            if first is not None:
                delays.append(1000 * (first - began - word_end))
    finals = [r["lag_ms"] for r in rows if r["event"] == "Final"]
    partials = [r["lag_ms"] for r in rows if r["event"] == "Partial" and r["text"]]
    dropped = max((r["dropped"] for r in rows if r["event"] == "Meters"), default=0)

    def line(name: str, values: list[float]) -> None:
        if values:
            median, late = statistics.median(values), float(np.percentile(values, 95))
            print(f"{name}: median {median:.0f} ms, 95 % {late:.0f} ms, n {len(values)}")

    print(f"{chunk_ms:g} ms chunks, {sum(map(len, words))} words spoken")
    line("end of a word to partial text on screen", delays)
    line("last sample of a partial text to that text", partials)
    line("sample that ends the utterance to final text", finals)
    print(f"dropped blocks {dropped}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        listen(sys.argv[2], float(sys.argv[3]))
    else:
        main()
