"""How long the demo's capture takes to be back after a fault: ``python -m virtual_mic.recovery [ROUNDS]``.

Seconds from replugging to the first new sample, over faults of different lengths, through PortAudio and ALSA.
Run it in tests/, with the repository on PYTHONPATH.
"""

from __future__ import annotations

import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from virtual_mic import Room, missing


def main() -> None:
    if missing():
        sys.exit(missing())
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        room = Room(Path(folder))
        desk = room.add("desk", np.ones(48000, np.int16), 48000)
        child = subprocess.Popen(
            [sys.executable, "-m", "virtual_mic.listener", folder, "desk"],
            env=room.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        captured: queue.Queue[float] = queue.Queue()

        def read() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                event = json.loads(line)
                if event["event"] == "sound":
                    captured.put(event["captured"])

        threading.Thread(target=read, daemon=True).start()
        captured.get(timeout=20)
        for fault in ("unplug", "stall", "break_down"):
            took = []
            for turn in range(rounds):
                getattr(desk, fault)()
                time.sleep(1.5 + 0.63 * turn)  # so that replugging meets every moment of the back-off
                while not captured.empty():  # overflows before the fault
                    captured.get()
                replugged = desk.replug()
                took.append(captured.get(timeout=20) - replugged)
                time.sleep(1.0)
            print(f"{fault}: median {statistics.median(took):.2f} s, longest {max(took):.2f} s of {rounds}", flush=True)
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
