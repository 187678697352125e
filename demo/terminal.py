"""The demo in a terminal: text that firms up while one speaks, level, speed and busy experts. Works over SSH, and
without a terminal as lines."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from demo.events import Ended, Event, Failed, Final, Notice, Opened, Ready, Severity
from demo.session import Session
from demo.settings import Settings
from demo.terminal_view import View
from edge.runtime import EdgeError
from edge.system.assets import sample_files, samples

_FRAME_S = 1 / 12
_SOURCES = ("microphone", "file")  # topics of notices about a source


def run(settings: Settings, files: list[Path], microphone: str | None, record: Path | None = None) -> int:
    """Run until the audio ends or Ctrl-C.

    Args:
        settings: bundles, engine and decoding.
        files: played one after the other, at the pace they were spoken; empty: the microphone.
        microphone: by name or number; None: the system's, and the bundled samples when there is none; "none": the
            samples.
        record: folder for WAV and transcripts of everything heard.

    Returns:
        The exit code.

    Raises:
        EdgeError: a bundle or option is refused, a file cannot be played, or ``microphone`` cannot be used.
    """
    session = Session(settings)
    terminal = _Terminal(session)
    try:
        with _Interrupt() as interrupt:
            terminal.interrupt = interrupt
            session.start()
            terminal.until(Ready)
            session.record(record)
            if not files and microphone != "none":
                if terminal.listen(microphone):
                    return 0
                files = []
            found = files or sample_files()
            if not found:
                raise EdgeError(
                    f"expected a microphone or audio files, found none in {samples()}; type: u2edge demo recording.wav"
                )
            for file in found:
                if not interrupt.is_set():
                    terminal.play(file)
            return 0
    finally:
        session.close()
        terminal.rest(session.poll())


class _Interrupt(threading.Event):
    """Set by the first Ctrl-C; the second one raises KeyboardInterrupt as always."""

    def __enter__(self) -> _Interrupt:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.is_set():
            raise KeyboardInterrupt
        self.set()


class _Terminal:
    """Asks the session for events and shows them."""

    def __init__(self, session: Session) -> None:
        self.console = Console(highlight=False)
        self.interrupt = threading.Event()
        self._session, self._view = session, View(self.console)
        self._opened = False  # the source that was asked for last
        self._refused = ""  # why it was not

    def until(self, kind: type[Event]) -> None:
        """Wait for an event of this kind; raises EdgeError when the session fails, or Ctrl-C comes first."""
        while not self.interrupt.is_set():
            for event in self._session.poll():
                if isinstance(event, Failed):
                    raise EdgeError(event.text)
                self._see(event)
                if isinstance(event, kind):
                    return
            time.sleep(_FRAME_S / 4)

    def listen(self, microphone: str | None) -> bool:
        """Until Ctrl-C; False when there is no microphone and none was asked for by name."""
        self._session.listen(microphone)
        if self._show() or self.interrupt.is_set():
            return True
        if microphone is not None:
            raise EdgeError(self._refused)
        self.console.print(self._refused, style="yellow", soft_wrap=True, markup=False)
        return False

    def play(self, file: Path) -> None:
        """To its end, or Ctrl-C."""
        line = Text("playing ").append(str(file), style="bold").append(" at real-time pace")
        self.console.print(line, soft_wrap=True)
        text = file.with_suffix(".txt")
        if text.is_file():
            spoken = text.read_text(encoding="utf-8", errors="replace").strip()
            self.console.print(f"  spoken:     {spoken}", style="dim", soft_wrap=True, markup=False)
        self._session.play(file)
        if not self._show() and not self.interrupt.is_set():
            raise EdgeError(self._refused)

    def rest(self, events: list[Event]) -> None:
        """What the session said while it was closed."""
        for event in events:
            if isinstance(event, (Final, Notice)):
                self._see(event)

    def _show(self) -> bool:
        """Draw until the source has ended; False when it could not be opened."""
        stopping = self._opened = False
        live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self._view.begin()
        if live:
            live.start()
        try:
            while True:
                if self.interrupt.is_set() and not stopping:
                    stopping = True
                    self._session.stop()
                for event in self._session.poll():
                    if isinstance(event, Failed):
                        raise EdgeError(event.text)
                    self._see(event)
                    if isinstance(event, Ended):
                        return self._opened
                if stopping and not self._opened:
                    return False
                if live:
                    live.update(self._view.draw(), refresh=True)
                time.sleep(_FRAME_S)
        finally:
            if live:
                live.stop()
            if self._opened:
                self._view.summary(stopped=stopping)

    def _see(self, event: Event) -> None:
        match event:
            case Ready():
                self._view.ready(event)
            case Opened():
                self._opened = True
                if event.live:
                    text = f"listening to {event.name} at {event.rate} Hz; Ctrl-C ends"
                    self.console.print(text, soft_wrap=True, markup=False)
            case Notice() if not self._opened and event.severity is Severity.ERROR and event.topic in _SOURCES:
                self._refused = event.text  # told by whoever asked for the source
            case Notice():
                self._view.notice(event)
            case _:
                self._view.see(event)
