"""What a window or a terminal talks to: commands that return at once, and events to fetch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demo.events import Event
from demo.session.loader import Loader
from demo.session.mailbox import Mailbox
from demo.session.transcript import Transcript
from demo.session.worker import Worker
from demo.settings import Settings

if TYPE_CHECKING:
    from demo.audio.source import Source


class Session:
    """Audio from one source at a time through one or two recognizers.

    Every method may be called from any thread and returns at once; what it asked for happens on the session's own
    threads. Nothing is raised: what goes wrong comes as an event, ``Notice`` when the session goes on as it was and
    ``Failed`` when it cannot.

    Example::

        session = Session(Settings(Path("models/reference-int8")))
        session.start()
        session.listen(None)
        while drawing:
            for event in session.poll():
                ...
        session.close()
    """

    def __init__(self, settings: Settings, verify: bool = True) -> None:
        """``verify``: compare the bundles' checksums when they are loaded."""
        self._mailbox = Mailbox()
        self._loader = Loader(verify)
        self._worker = Worker(self._mailbox, self._loader)
        self._thread = threading.Thread(target=self._worker.run, name="u2edge-session", daemon=True)
        self._first = settings

    def start(self) -> None:
        """Load the recognizers, then do what was asked for meanwhile. ``Ready`` or ``Failed`` will tell."""
        self._thread.start()
        self.apply(self._first)

    def close(self, timeout_s: float = 5.0) -> bool:
        """End everything, save a recording that is going on, and wait for it. Returns whether it ended in time."""
        self._worker.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._loader.close(0.2 if self._thread.is_alive() else timeout_s)
        return not self._thread.is_alive()

    def poll(self) -> list[Event]:
        """Events since the last call, oldest first; never blocks.

        The list is bounded, however long nobody asked: only the newest ``Partial``, ``Meters`` and ``ExpertLoad`` of
        a lane and the newest ``Notice`` of a topic are in it, one ``Heard`` with the last 30 s at most, and the last
        200 of the others.
        """
        return self._mailbox.take()

    @property
    def settings(self) -> Settings:
        """In force: those of the last ``Ready``, or what the session began with."""
        return self._worker.settings or self._first

    def apply(self, settings: Settings) -> None:
        """Change bundles, engine or decoding, also in the middle of a word.

        The recognizers go on until the new ones are loaded. Where only chunk length and left context change, they
        then go on in the middle of the utterance; else the current utterance is heard again from its beginning. No
        word is lost either way. Settings that are refused give a ``Notice`` and change nothing.
        """
        self._worker.post(lambda: self._worker.load(settings))

    def listen(self, device: str | None = None) -> None:
        """Hear a microphone, by name or number; None: the system's."""

        def make() -> Source:
            from demo.audio.supervisor import MicrophoneSource

            return MicrophoneSource(device, self._first.channel)

        self.hear(make)

    def play(self, path: Path, pace: float | None = 1.0) -> None:
        """Hear an audio file; ``pace`` 1: as fast as it was spoken, None: as fast as the recognizers can."""

        def make() -> Source:
            from demo.audio.files import FileSource

            return FileSource(path, pace, self._first.channel)

        self.hear(make, paced=pace is not None, topic="file")

    def hear(self, make: Callable[[], Source], paced: bool = True, topic: str = "microphone") -> None:
        """Hear any source; the one before is left, and what it delivered is decoded first.

        Args:
            make: opens the source; called on the session's thread. What it raises becomes a ``Notice``.
            paced: it delivers as time passes, and what is not read in time waits. False: it delivers when asked.
            topic: of the notice when it cannot be opened.
        """
        self._worker.post(lambda: self._worker.hear(make, paced, topic))

    def stop(self) -> None:
        """Leave the source; what it delivered is decoded, then comes ``Ended``."""
        self._worker.post(self._worker.stop)

    def finish(self) -> None:
        """End the utterance with what was heard so far."""
        self._worker.post(self._worker.finish)

    def record(self, folder: Path | None) -> None:
        """Record into ``folder`` from now on, a file per source; None: save what was recorded and stop.

        A notice (topic "recording") names the files: WAV, and the transcript as TXT, SRT and JSON. The utterance
        that is being spoken ends at both ends of a recording.
        """
        self._worker.post(lambda: self._worker.record(folder))

    def transcript(self, lane: int = 0) -> Transcript:
        """A snapshot of everything said, of all sources."""
        log = self._worker.logs.get(lane)
        return log.snapshot() if log else Transcript()
