"""The demo's session on a microphone that is unplugged, and one that stalls, in the middle of an utterance."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import ROOT
from virtual_mic import Room, missing

from edge.runtime import DecodeOptions, Recognizer

BUNDLE = ROOT / "models/reference-bundle"
SAMPLE = ROOT / "models/reference/samples/human-2.flac"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


class Listener:
    """A process with a session on the room's microphone, and what it has shown."""

    def __init__(self, room: Room) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "virtual_mic.latency", "--listen", str(BUNDLE), "320"],
            cwd=ROOT / "tests" / "helpers",
            env={**room.environment(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.rows: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.rows.put(json.loads(line))

    def wait(self, wanted: Callable[[dict[str, Any]], bool], within_s: float = 30.0) -> dict[str, Any]:
        """The next row that is ``wanted``."""
        end, seen = time.monotonic() + within_s, []
        while time.monotonic() < end:
            try:
                row = self.rows.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                break
            seen.append(row)
            if wanted(row):
                return row
        raise AssertionError(f"not seen within {within_s:g} s; seen: {seen[-8:]}")


@pytest.mark.parametrize("fault", ["unplug", "stall"])
def test_text_survives_a_fault_and_capture_resumes(tmp_path: Path, fault: str) -> None:
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    words = [
        w for r in Recognizer.load(BUNDLE).transcribe(SAMPLE, options=DecodeOptions(chunk_ms=320)) for w in r.words
    ]
    spoken = [w.text for w in words]
    room = Room(tmp_path)
    desk = room.add("desk", np.concatenate([samples, np.zeros(rate * 600, np.int16)]), rate)
    listener = Listener(room)
    try:
        listener.wait(lambda row: row["event"] == "Opened")
        time.sleep(0.5)
        desk.speak()
        listener.wait(lambda row: row["event"] == "Partial" and len(row["text"].split()) >= 2)
        getattr(desk, fault)()
        listener.wait(lambda row: row["event"] == "Notice" and "the text so far is kept" in row["text"])
        kept = listener.wait(lambda row: row["event"] == "Final")["text"].split()
        # Not compared with the partial text: that is CTC alone, and where chunks begin is chance.
        assert kept[:2] == spoken[:2], "what was said before the fault"
        desk.hush()
        replugged = desk.replug()
        back = listener.wait(lambda row: row["event"] == "Notice" and "is back" in row["text"], within_s=10.0)
        assert back["at"] - replugged < 5.0
        desk.speak()
        again = listener.wait(lambda row: row["event"] == "Final" and len(row["text"].split()) > 1)
        assert again["text"].split() == spoken
    finally:
        listener.child.kill()
        listener.child.wait()
