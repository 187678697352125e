"""Does a long stream leak? Resident memory after 10 minutes of synthetic audio, and after hours.

    python -m recipes.soak --hours 3

The stream is the bundled samples again and again, with pauses, noise and gain that change, at 16 kHz.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
SAMPLES = Path("models/reference/samples")


def write_stream(path: Path, hours: float, seed: int = 0) -> None:
    """A FLAC file of ``hours`` hours, written block by block."""
    rng = np.random.default_rng(seed)
    clips = []
    for file in sorted(SAMPLES.glob("*.flac")):
        samples, rate = soundfile.read(file, dtype="float32")
        if rate == RATE and samples.ndim == 1:
            clips.append(samples)
    if not clips:
        raise SystemExit(f"error: expected 16 kHz mono FLAC files in {SAMPLES}, found none")
    left = int(hours * 3600 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC") as file:
        while left > 0:
            clip = clips[int(rng.integers(len(clips)))] * rng.uniform(0.3, 1.0)
            pause = np.zeros(int(rng.uniform(0.2, 8.0) * RATE))
            block = np.concatenate([clip, pause])
            block = (block + rng.normal(0, rng.uniform(0, 0.005), len(block))).astype(np.float32)[:left]
            file.write(np.clip(block, -1, 1))
            left -= len(block)


def resident(pid: int) -> int:
    """Resident memory of a process, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--bundle", type=Path, default=Path("models/reference-bundle"))
    parser.add_argument("--tolerance", type=float, default=0.02, help="accepted relative difference of memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.flac"
        print(f"writing {args.hours:g} h of audio", flush=True)
        write_stream(path, args.hours)
        command = [sys.executable, "-m", "u2edge", "transcribe", str(path), "--bundle", str(args.bundle), "--json"]
        began, early, last, shown, finals = time.time(), 0, 0, 0.0, 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["type"] == "summary":
                    print(f"RTF {event['rtf']}, {event['utterances']} utterances, {event['chunks']} chunks")
                    continue
                finals += event["type"] == "final"
                minutes = event["end_ms"] / 60000
                last = resident(process.pid)
                if not early and minutes >= 10:
                    early = last
                if minutes >= shown + 10:
                    shown = minutes
                    print(
                        f"{minutes:6.1f} min  {last / 1024:7.1f} MB  {finals} utterances  "
                        f"{minutes * 60 / (time.time() - began):.0f}x real time",
                        flush=True,
                    )
    if process.returncode or not early:
        raise SystemExit(f"error: expected exit code 0 and more than 10 minutes, found {process.returncode}")
    change = last / early - 1
    print(f"after 10 min {early / 1024:.1f} MB, at the end {last / 1024:.1f} MB: {100 * change:+.2f} %")
    if abs(change) >= args.tolerance:
        raise SystemExit(f"error: expected less than {100 * args.tolerance:g} %")


if __name__ == "__main__":
    main()
