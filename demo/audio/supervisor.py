"""A microphone that survives: unplugging, stalls, sleep, programs that take it away. It says what happens."""

from __future__ import annotations

import queue
import sys
import threading
import time
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from demo.audio import devices, portaudio
from demo.audio.capture import BLOCK_S, Capture, Missing, open_capture
from demo.audio.source import Item, MicrophoneError
from demo.events import Block, Notice, Severity

TOPIC = "microphone"

START_S = 3.0  # seconds a stream may take to deliver its first block (PulseAudio takes about 2)
SILENT_S = 1.0  # seconds without a callback that mean a stalled or unplugged device
LAG_S = 2.0  # seconds the samples may lag behind the clock
BACK_OFF_S = (0.2, 0.4, 0.8, 1.5)  # before the attempts to reopen; the last one repeats. Back within 5 s of replugging
KEPT_S = 120.0  # seconds of sound that wait for a reader
_TICK_S = 0.1
_OPEN_S, _RELEASE_S, _CLOSE_S = 8.0, 1.2, 1.8  # seconds a call may take
_SHOWN_S = 5.0  # seconds that good news stay


class State(Enum):
    OPENING = "opening"
    LISTENING = "listening"
    STALLED = "stalled"
    UNPLUGGED = "unplugged"
    REOPENING = "reopening"
    CLOSED = "closed"


class MicrophoneSource:
    """Sound of one input device at its own rate, mono, in blocks of 20 ms.

    Opens the device, then never raises again: what goes wrong is told by notices of topic "microphone" and tried again
    until ``close``. Sound that is lost meanwhile is stated in ``Block.gap_ms`` of the next block, to the length of the
    computer's sleep. Only one can be open in a process.

    Args:
        channel: of the device, from 1; None: its first eight are opened, and what is live in them is followed.
        device: name, part of a name, or index in PortAudio's list. None: the default one; and another one when that
            disappears, which a chosen one is never replaced by.

    Raises:
        MicrophoneError: sounddevice or PortAudio is missing, or there is no such device, or it cannot be opened.
    """

    live = True
    seconds: float | None = None

    def __init__(self, device: str | None = None, channel: int | None = None) -> None:
        self.state = State.OPENING
        self._channel = channel
        self.lost_ms = 0.0  # of sound, in all
        self.overflows = 0  # of the driver
        self.dropped_blocks = 0  # because nobody read for two minutes
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._quit = threading.Event()
        self._ended = False
        self._samples = 0
        self._until: tuple[float, float] | None = None  # when the last sample existed, seconds slept by then
        self._dropped_s = 0.0  # since the last block that was kept
        self._told = ""
        self._forget_at = np.inf
        self._attempt = 0
        self._sounddevice = portaudio.load()
        # PortAudio has no second list of devices: looking anew would end the other one's stream.
        if not _only_one.acquire(blocking=False):
            raise MicrophoneError("a microphone is open already; close it first")
        try:
            self._wanted = self._resolve(device)
            self._capture = self._open()
        except BaseException:
            _only_one.release()
            raise
        self._name, self._rate = self._capture.name, self._capture.rate
        self._thread = threading.Thread(target=self._run, name="microphone", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Of the device that is used now, or was used last."""
        return self._name

    @property
    def rate(self) -> int:
        """Hz of the device that is used now; a device that is reopened keeps its rate."""
        return self._rate

    @property
    def ended(self) -> bool:
        """True after ``close``; a microphone does not end by itself."""
        return self._ended

    def read(self, timeout_s: float) -> Item | None:
        """The next block or notice in the order in which they came; None when there is none within ``timeout_s``."""
        if self._ended:
            return None
        try:
            return self._items.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Let the device go; gives up on one that hangs after 1.8 s."""
        self._quit.set()
        self._thread.join(_CLOSE_S)
        self._ended = True
        self.state = State.CLOSED

    # On the constructor's thread, then on the supervisor's.

    def _resolve(self, device: str | None) -> str | None:
        def look() -> str | None:
            portaudio.rescan(self._sounddevice)
            found, default = devices.scan(self._sounddevice)
            return devices.resolve(found, device, default)

        return portaudio.call(look, _OPEN_S) if device is not None else None

    def _open(self) -> Capture:
        rates = (self._rate,) if self._until else ()  # readers need not change theirs, if the device can
        capture = portaudio.call(
            lambda: open_capture(self._sounddevice, self._wanted, self._receive, rates, self._attempt, self._channel),
            _OPEN_S,
            cancel=self._quit,
            discard=Capture.release,
        )
        devices.in_use.add(capture.label)
        return capture

    def _release(self, capture: Capture) -> None:
        devices.in_use.discard(capture.label)
        try:
            portaudio.call(capture.release, _RELEASE_S, anyway=True)
        except portaudio.PortAudioHangs as error:
            self._tell(f"{capture.name}: {error}", Severity.ERROR)

    def _run(self) -> None:
        capture: Capture | None = self._capture
        failed = ""
        try:
            while capture is not None:
                failed = self._listen(capture, failed)
                if not self._quit.is_set():
                    self.state = State.STALLED
                    again = "Opening it again; the text so far is kept."
                    self._tell(f"{self._name}: {failed}. {again}", Severity.WARNING)
                self._release(capture)
                capture = self._reopen()
        finally:
            _only_one.release()

    def _listen(self, capture: Capture, failed: str) -> str:
        """Watch ``capture`` until something is wrong with it, and return what; "" when closing.

        ``failed``: what was wrong with the one before, for the user to read that it is over.
        """
        opened, slept, before = time.monotonic(), slept_s(), time.monotonic()
        excused = 0.0  # silence before this time is the computer's fault
        overflows = broken = 0
        channel_note = ""
        heard = False
        while not self._quit.wait(_TICK_S):
            now = time.monotonic()
            if slept_s() - slept > 1.0:
                return f"the computer slept for {_span(slept_s() - slept)}"
            if now - before > SILENT_S:  # this process did not run, so neither did its callbacks
                excused = now
            before = now
            if not heard and capture.blocks:
                heard = True
                self._attempt = 0
                self.state = State.LISTENING
                self._welcome(capture, failed)
                self._name, self._rate = capture.name, capture.rate
            if capture.overflows > overflows:
                self.overflows += capture.overflows - overflows
                overflows = capture.overflows
                self._tell(f"{capture.name}: sound was lost, the computer was too busy", Severity.WARNING, _SHOWN_S)
            if capture.channel_note != channel_note:
                channel_note = capture.channel_note
                self._tell(f"{capture.name}: {channel_note}" if channel_note else "", Severity.INFO, 2 * _SHOWN_S)
            if capture.broken > broken:
                self._tell(f"{capture.name}: broken samples, replaced by silence", Severity.WARNING, _SHOWN_S)
                broken = capture.broken
            if now >= self._forget_at:
                self._tell("")
            if capture.finished:
                return "the system has stopped it"
            if now - max(capture.last, excused) > (SILENT_S if heard else START_S):
                return "it stopped delivering sound" if heard else "it delivers no sound"
            if not heard and now - opened > SILENT_S and not failed:
                self._tell(f"{capture.name}: waiting for the first sound")
            if capture.clock.late_s > LAG_S:
                return f"its sound came {capture.clock.late_s:.0f} s late"
        return ""

    def _reopen(self) -> Capture | None:
        """Try until a capture is open, or None when closing."""
        attempts = 0
        while not self._quit.wait(BACK_OFF_S[min(max(attempts, self._attempt), len(BACK_OFF_S) - 1)]):
            attempts += 1
            try:
                capture = self._open()
            except Missing:
                self.state = State.UNPLUGGED
                self._tell(f"{self._name} is unplugged. Plug it in again; the text so far is kept.", Severity.WARNING)
            except portaudio.PortAudioHangs as error:
                if not self._quit.is_set():
                    self._tell(f"{self._name}: {error}", Severity.ERROR)
            except Exception as error:  # MicrophoneError, and whatever a sick sound system makes of sounddevice
                reason = str(error) if isinstance(error, MicrophoneError) else f"{self._name}: {error}"
                self._tell(f"{reason}. Trying again.", Severity.WARNING)
            else:
                self._attempt += 1  # until it is heard
                self.state = State.REOPENING
                return capture
        return None

    def _welcome(self, capture: Capture, failed: str) -> None:
        if capture.name != self._name:
            self._tell(f"Listening to {capture.name} instead of {self._name}.", Severity.WARNING, 2 * _SHOWN_S)
        elif failed:
            self._tell(f"{capture.name} is back.", Severity.INFO, _SHOWN_S)
        else:
            self._tell("")

    def _tell(self, text: str, severity: Severity = Severity.INFO, shown_s: float = np.inf) -> None:
        self._forget_at = time.monotonic() + shown_s
        if text != self._told:
            self._told = text
            self._items.put(Notice(TOPIC, text, severity))

    # On PortAudio's callback thread; never two at once, since a capture is released before the next is opened.

    def _receive(self, capture: Capture, samples: NDArray[np.float32], captured: float, lost_s: float) -> None:
        slept = slept_s()
        if capture.blocks > 1 and self._until is not None and slept - self._until[1] > 1.0:
            lost_s += slept - self._until[1]
        if capture.blocks == 1 and self._until is not None:
            began = captured - len(samples) / capture.rate
            lost_s = max(0.0, began - self._until[0] + slept - self._until[1])
        self._until = captured, slept
        self.lost_ms += 1000 * lost_s
        self._dropped_s += lost_s
        if self._items.qsize() > KEPT_S / BLOCK_S:
            self.dropped_blocks += 1
            self.lost_ms += 1000 * len(samples) / capture.rate
            self._dropped_s += len(samples) / capture.rate
            return
        self._items.put(Block(samples, capture.rate, self._samples, captured, 1000 * self._dropped_s))
        self._dropped_s = 0.0
        self._samples += len(samples)


_only_one = threading.Semaphore()


def slept_s() -> float:
    """Seconds that ``time.monotonic()`` leaves out because the computer slept; of use as differences."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
    return 0.0  # Windows: time.monotonic() goes on, and silence while the computer slept is seen as such


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
