"""A process that listens with the demo's own capture: ``python -m virtual_mic.listener FOLDER [DEVICE]``.

Prints one JSON object per event. Commands, a line each on its standard input: ``sleep 2`` (do not read for two
seconds), ``close``. Then it writes FOLDER/heard.npz: samples (n,), and of each block first, length, rate (Hz),
captured (s, of ``time.monotonic()``) and gap_ms.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np


def say(**event: Any) -> None:
    print(json.dumps({"at": time.monotonic(), **event}), flush=True)


def main() -> None:
    from demo.audio import MicrophoneError, MicrophoneSource
    from demo.events import Block, Notice

    folder, device = Path(sys.argv[1]), (sys.argv[2] if len(sys.argv) > 2 else None)
    try:
        source = MicrophoneSource(device)
    except MicrophoneError as error:
        say(event="refused", text=str(error))
        return
    say(event="opened", name=source.name, rate=source.rate)
    commands: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            commands.put(line.split())
        commands.put(["close"])

    threading.Thread(target=listen, daemon=True).start()
    blocks: list[Block] = []
    while True:
        if not commands.empty():
            command = commands.get()
            if command[0] == "close":
                break
            time.sleep(float(command[1]))
        item = source.read(0.1)
        if isinstance(item, Notice):
            say(event="notice", topic=item.topic, text=item.text, severity=item.severity.value)
        elif item is not None:
            if not blocks or item.gap_ms:
                say(event="sound", gap_ms=item.gap_ms, captured=item.captured, name=source.name)
            blocks.append(item)
    began = time.monotonic()
    source.close()
    say(
        event="closed",
        took_s=time.monotonic() - began,
        lost_ms=source.lost_ms,
        overflows=source.overflows,
        dropped=source.dropped_blocks,
        ended=source.ended,
    )
    np.savez(
        folder / "heard.npz",
        samples=np.concatenate([block.samples for block in blocks]) if blocks else np.zeros(0, np.float32),
        first=[block.first for block in blocks],
        length=[len(block.samples) for block in blocks],
        rate=[block.rate for block in blocks],
        captured=[block.captured for block in blocks],
        gap_ms=[block.gap_ms for block in blocks],
    )
    say(event="written")


if __name__ == "__main__":
    main()
