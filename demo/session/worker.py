"""The session's thread: takes audio from the source, lets every lane decode, tells what happened."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demo.events import Ended, Event, Failed, Final, Lane, Notice, Opened, Partial, Ready, Severity
from demo.session.audio_buffer import AudioBuffer
from demo.session.intake import Intake
from demo.session.lanes import LaneDecoder
from demo.session.load_shedding import LoadShedding
from demo.session.loader import Loader, Prepared
from demo.session.mailbox import Mailbox
from demo.session.messages import line
from demo.session.meters import Load
from demo.session.recording import Recording
from demo.session.transcript import TranscriptLog, Utterance
from demo.settings import Settings
from edge.runtime import EdgeError

if TYPE_CHECKING:
    from demo.audio.source import Source

_METERS_S = 0.5
_IDLE_S, _READ_S = 0.25, 0.05  # seconds a turn may wait: without a source, with one
_CLOSING_S = 2.0  # for what is still to decode when the session ends

_log = logging.getLogger(__name__)


class Worker:
    """All methods but ``post``, ``close`` and ``run`` are called on the worker's thread only."""

    def __init__(self, mailbox: Mailbox, loader: Loader) -> None:
        self.settings: Settings | None = None
        self.logs: dict[int, TranscriptLog] = {}
        self._mailbox, self._loader = mailbox, loader
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = False
        self._lanes: list[LaneDecoder] = []
        self._intake: Intake | None = None  # until what it delivered is decoded
        self._next: tuple[Callable[[], Source], bool, str] | None = None  # to be opened when lanes are ready
        self._opened = 0  # sources so far
        self._recording = Recording(mailbox.put)
        self._shedding = LoadShedding(mailbox.put, loader, self.post)
        self._load, self._metered = Load(), 0.0

    # Called from any thread.

    def post(self, command: Callable[[], None]) -> None:
        """Have ``command`` called on the worker's thread."""
        self._commands.put(command)

    def close(self) -> None:
        """End soon."""
        self._closing = True
        self._commands.put(lambda: None)

    def run(self) -> None:
        """The thread."""
        while not self._closing:
            try:
                self._turn()
            except Exception as error:  # a window must learn of it, whatever an engine threw
                self._fail(error)
        try:
            self._shut()
        except Exception as error:
            self._fail(error)

    # Commands.

    def load(self, settings: Settings) -> None:
        self._loader.load(settings, lambda outcome: self.post(lambda: self._loaded(settings, outcome)))

    def hear(self, make: Callable[[], Source], paced: bool, topic: str) -> None:
        self.stop()
        self._next = make, paced, topic

    def stop(self) -> None:
        self._next = None
        if self._intake is not None:
            self._intake.leave("stopped")

    def finish(self) -> None:
        if self._intake is not None and self._intake.left is None:
            self._intake.buffer.cut()

    def record(self, folder: Path | None) -> None:
        self._recording.folder = folder
        if folder is None and self._intake is not None:
            self._recording.stop(self._intake.now_ms, self._intake.buffer)

    # The work.

    def _turn(self) -> None:
        while not self._commands.empty():
            self._commands.get()()
        if self._next is not None and self._intake is None and self._lanes:
            self._open(*self._next)
        if self._intake is not None and self._intake.paced:
            self._intake.pull()
        busy = self._decode()
        self._watch()
        if busy:
            return
        if self._intake is None:
            self._wait()
        elif self._intake.left is not None:
            self._end()
        else:
            self._intake.read(_READ_S)

    def _wait(self) -> None:
        try:
            command = self._commands.get(timeout=_IDLE_S)
        except queue.Empty:
            return
        command()

    def _decode(self) -> bool:
        """One step of every lane; False when all are idle."""
        busy = [lane for lane in self._lanes if not lane.idle]
        for lane in busy:
            self._tell(lane, lane.step())
            self._shedding.settle(lane)
        if busy:
            cut = min(lane.cut for lane in self._lanes)
            busy[0].buffer.forget(min(lane.utterance for lane in self._lanes), cut)
            self._recording.passed(cut, self._titles)
        return bool(busy)

    def _tell(self, lane: LaneDecoder, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                utterance = Utterance.of(event.result, self._opened - 1)
                self.logs[lane.index].add(utterance)
                self._recording.add(lane.index, utterance)
            elif isinstance(event, Partial):
                self.logs[lane.index].show(event.result.text)
            self._mailbox.put(event)

    def _open(self, make: Callable[[], Source], paced: bool, topic: str) -> None:
        self._next = None
        try:
            source = make()
        except Exception as error:
            self._mailbox.put(Notice(topic, line(error), Severity.ERROR))
            self._mailbox.put(Ended(line(error)))
            return
        self._intake = Intake(source, paced, topic, self._mailbox.put, self._recording)
        self._opened += 1
        self._lanes = [LaneDecoder(lane.prepared, self._intake.buffer) for lane in self._lanes]
        self._shedding.reset(self._lanes)
        self._mailbox.put(Notice("level", ""))
        self._mailbox.put(Opened(source.name, source.rate, source.live, source.seconds))
        for lane in self._lanes:
            self._tell(lane, lane.expert_load())

    def _end(self) -> None:
        """Everything the source delivered is decoded."""
        assert self._intake is not None and self._intake.left is not None
        self._recording.save(self._titles)
        self._meters()
        self._mailbox.put(Notice("level", ""))
        self._mailbox.put(Ended(self._intake.left))
        self._intake = None

    def _watch(self) -> None:
        now = time.monotonic()
        if self._intake is not None and self._intake.paced:
            self._shedding.observe(now, self._lanes, self._intake.buffer.held_mb)
        if now - self._metered >= _METERS_S:
            self._metered = now
            self._meters()

    def _meters(self) -> None:
        cpu, memory = self._load.cpu_percent(), self._load.memory_mb()
        dropped = self._intake.dropped if self._intake else 0
        for lane in self._lanes:
            self._mailbox.put(lane.meters(cpu, memory, dropped))

    @property
    def _titles(self) -> list[Lane]:
        return [lane.prepared.lane for lane in self._lanes]

    def _loaded(self, settings: Settings, outcome: list[Prepared] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            if self._lanes:
                text = f"{line(outcome)} (the settings before stay in force)"
                self._mailbox.put(Notice("settings", text, Severity.ERROR))
            else:
                self._mailbox.put(Failed(line(outcome)))
            return
        self._lanes = [self._lane(prepared) for prepared in outcome]
        self.settings = settings
        self._shedding.reset(self._lanes)
        self._mailbox.put(Notice("settings", ""))
        self._mailbox.put(Ready(tuple(self._titles)))

    def _lane(self, prepared: Prepared) -> LaneDecoder:
        """The lane that goes on with what was prepared."""
        index = prepared.lane.index
        old = next((lane for lane in self._lanes if lane.index == index), None)
        if old is None:
            self.logs.setdefault(index, TranscriptLog())
            if self._lanes:  # a second one joins in the middle of the first one's utterance
                first = self._lanes[0]
                return LaneDecoder(prepared, first.buffer, first.utterance, first.cut)
            buffer = self._intake.buffer if self._intake else AudioBuffer()
            return LaneDecoder(prepared, buffer, buffer.end, buffer.cuts)
        return old.going_on(prepared)

    def _fail(self, error: BaseException) -> None:
        """Stop everything; what was recorded and said is kept."""
        if not isinstance(error, EdgeError):
            _log.error("the session's thread", exc_info=error)
        self._mailbox.put(Failed(line(error)))
        lanes, self._lanes = self._titles, []
        self.stop()
        self._intake = None
        self._recording.save(lanes)

    def _shut(self) -> None:
        self.stop()
        until = time.monotonic() + _CLOSING_S
        while self._intake is not None and time.monotonic() < until:
            if not self._decode():
                self._end()
        self._recording.save(self._titles)
