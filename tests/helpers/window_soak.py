"""Memory of the window over an hour of recordings, played one after the other with a second between them.

    PYTHONPATH=.:tests python -m window_soak build/dev-digits --pace 1

Not a test: it takes an hour (minutes with ``--pace 0``, as fast as recognition goes).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from demo.launch import one_heap
from demo.settings import Settings

RATE = 16000


def recording(folder: Path, minutes: float, out: Path) -> Path:
    """A WAV of this length made of the recordings in ``folder``."""
    parts = [soundfile.read(path, dtype="int16")[0] for path in sorted(folder.glob("*.flac"))]
    if not parts:
        raise SystemExit(f"{folder}: expected recordings (*.flac), found none; make digits writes build/dev-digits")
    rest = np.zeros(RATE, np.int16)
    length = 0
    with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16") as file:
        while length < minutes * 60 * RATE:
            for part in parts:
                file.write(np.concatenate([part, rest]))
                length += len(part) + RATE
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="recordings, 16 kHz mono FLAC")
    parser.add_argument("--bundle", type=Path, default=Path("models/reference-bundle"))
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio")
    parser.add_argument("--pace", type=float, default=1.0, help="times real time; 0: as fast as it goes")
    args = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    one_heap()
    from demo.events import Meters
    from demo.session import Session
    from demo.window.app import make_application
    from demo.window.main_window import MainWindow
    from demo.window.theme import Look, Theme

    application, settings = make_application(), Settings(args.bundle)
    session = Session(settings)
    window = MainWindow(session, Theme(application, Look("dark")), settings)
    window.resize(1100, 720)
    window.show()
    session.start()
    dropped = 0
    take = window._take

    def watch(event: object) -> None:
        nonlocal dropped
        if isinstance(event, Meters):
            dropped = event.dropped_blocks
        take(event)  # type: ignore[arg-type]

    window._take = watch  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as temporary:
        session.play(recording(args.folder, args.minutes + 0.5, Path(temporary) / "hour.wav"), args.pace or None)
        began, mark = time.monotonic(), 0.0
        while mark <= args.minutes:
            application.processEvents()
            time.sleep(0.03)
            said = session.transcript().utterances
            heard = said[-1].end_ms / 60000 if said else 0.0
            if heard >= mark:
                resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
                print(
                    f"{heard:.1f} min heard, {time.monotonic() - began:.0f} s: {resident:.1f} MB, "
                    f"{len(said)} utterances, references to None {sys.getrefcount(None)}, dropped blocks {dropped}",
                    flush=True,
                )
                mark += 10
    session.close()


if __name__ == "__main__":
    main()
