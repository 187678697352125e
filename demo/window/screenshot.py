"""A picture of the window while it recognises a real recording.

python -m demo.window.screenshot OUT.png [--theme dark|light] [--compare] [--size 1100x720] RECORDING...
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge.system.assets import default_bundle

WAIT_S = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(prog="demo.window.screenshot", description="Picture of the demo at work.")
    parser.add_argument("out", type=Path)
    parser.add_argument("recording", type=Path, nargs="+", help="played one after another")
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--compare", action="store_true", help="beside the other bundle of the same model")
    parser.add_argument("--size", default="1100x720", metavar="WxH")
    parser.add_argument("--chunk-ms", type=float)
    parser.add_argument("--left-chunks", type=int, default=16)
    parser.add_argument("--no-rescoring", action="store_true")
    options = parser.parse_args(arguments)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    width, _, height = options.size.partition("x")
    return take(options, int(width), int(height))


def take(options: argparse.Namespace, width: int, height: int) -> int:
    """Play, wait for a final, or for the last of several recordings to be half spoken; grab. Returns the exit code."""
    from PySide6.QtWidgets import QApplication

    from demo.session import Session
    from demo.settings import Settings
    from demo.window.app import make_application
    from demo.window.main_window import MainWindow
    from demo.window.theme import Look, Theme

    application = make_application()
    settings = Settings(
        options.bundle,
        chunk_ms=options.chunk_ms,
        left_chunks=options.left_chunks,
        rescoring=not options.no_rescoring,
    )
    session = Session(settings)
    window = MainWindow(session, Theme(application, Look(options.theme)), settings)
    window.resize(width, height)
    window.show()
    session.start()

    def wait(until: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {seconds:g} s; the window says {window.stage.notices.texts()}")
            application.processEvents()
            time.sleep(0.01)

    try:
        wait(lambda: window.ready and window.settings_bar.partner is not None, "model")
        if options.compare:
            window.actions_.compare.trigger()
            wait(lambda: window.stage.comparing, "second model")
        window.play(options.recording)
        last = len(options.recording)

        def enough() -> bool:
            """The only recording is recognised; or of several, the last one is being spoken."""
            lines = window.lines
            if not lines or sum(bool(line.heading) for line in lines) < last:
                return False
            return len(lines[-1].words) >= 3 and lines[-1].partial == (last > 1)

        wait(enough, "text")
        end = time.monotonic() + 0.3  # whatever else belongs to this moment
        wait(lambda: time.monotonic() > end, "")
        with tempfile.TemporaryDirectory(dir=options.out.resolve().parent) as folder:
            picture = Path(folder) / options.out.name
            if not window.grab().save(str(picture)):
                raise OSError(f"cannot write {options.out}")
            picture.replace(options.out)
        print(f"wrote {options.out}: {' / '.join(line.text for line in window.lines)}")
        return 0
    except (TimeoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        window.close()
        session.close()
        QApplication.processEvents()


if __name__ == "__main__":
    sys.exit(main())
