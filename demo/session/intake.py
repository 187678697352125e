"""One opened source, and everything between it and the audio buffer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from demo.audio.level import LevelWatch
from demo.events import Block, Event, Notice, Severity
from demo.session.audio_buffer import PER_MS, RATE, AudioBuffer
from demo.session.hearing import Hearing
from demo.session.messages import line
from demo.session.recording import Recording

if TYPE_CHECKING:
    from demo.audio.source import Source

GAP_MS = 200.0  # of lost audio: what comes after it is another utterance
STALL_S = 2.0  # without a block from something live: the utterance ends, so that its text becomes final
_BLOCKS = 64  # taken at once, before lanes have their turn


class Intake:
    """Reads a source until it ends or is left; nothing here raises.

    Args:
        source: what ``Session.hear`` opened.
        paced: it delivers as time passes.
        topic: of notices about it.
        put: takes events.
        recording: gets every sample.
    """

    def __init__(
        self, source: Source, paced: bool, topic: str, put: Callable[[Event], None], recording: Recording
    ) -> None:
        self.buffer, self.paced = AudioBuffer(), paced
        self.left: str | None = None
        """Why no more audio comes; None while it does."""
        self._source, self._topic, self._put, self._recording = source, topic, put, recording
        self._name = source.name
        self._level = LevelWatch(source.live)
        self._hearing: Hearing | None = None
        self._origin = 0.0  # position in the buffer where the Hearing began
        self._heard = 0  # samples it got
        self._expected: int | None = None  # number of the source's next sample
        self._skipped = 0
        self._arrived = time.monotonic()
        self._stalled = False

    @property
    def now_ms(self) -> float:
        """Milliseconds of audio the source has delivered."""
        if self._hearing is None:
            return self.buffer.end / PER_MS
        return self._origin / PER_MS + 1000.0 * self._heard / self._hearing.rate

    @property
    def dropped(self) -> int:
        """Blocks that never came: skipped on the way here, or lost by the source."""
        source = self._source
        return self._skipped + getattr(source, "dropped_blocks", 0) + getattr(source, "overflows", 0)

    def pull(self) -> None:
        """Whatever the source has: it must not wait there, where nobody counts it."""
        for _ in range(_BLOCKS):
            if not self.read(0.0):
                return

    def read(self, timeout_s: float) -> bool:
        """Take one block or notice; False when there is none within ``timeout_s``."""
        if self.left is not None:
            return False
        source = self._source
        try:
            item = source.read(timeout_s)
            ended = item is None and source.ended
        except Exception as error:  # a driver's surprise
            self._put(Notice(self._topic, line(error), Severity.ERROR))
            self.leave(line(error))
            return False
        if ended:
            self.leave("the source has ended" if source.live else "the end of the file")
        elif item is None:
            self._wait_for_sound()
        elif isinstance(item, Notice):
            self._put(item)
        else:
            self._take(item)
        return item is not None

    def leave(self, reason: str) -> None:
        """Close the source; what it delivered stays in the buffer, up to a last cut."""
        if self.left is not None:
            return
        self.left = reason
        try:
            self._source.close()
        except Exception as error:
            self._put(Notice(self._topic, line(error), Severity.WARNING))
        now_ms = self.now_ms
        self._flush()
        self.buffer.cut()
        self._recording.stop(now_ms, self.buffer)

    def _take(self, block: Block) -> None:
        block = self._checked(block)
        if self._hearing is None or block.rate != self._hearing.rate or block.gap_ms >= GAP_MS:
            self._hear_anew(block.rate)
        assert self._hearing is not None
        if self._expected is not None and block.first > self._expected:
            self._skipped += 1
        self._expected = block.first + len(block.samples)
        self._arrived, self._stalled = time.monotonic(), False
        self._recording.write(block.samples, block.rate, self._name, self.now_ms, self.buffer)
        level = self._level.add(block)
        if level is not None:
            self._put(level)
        samples, heard = self._hearing.accept(block)
        self._heard += len(block.samples)
        self.buffer.append(samples, self._origin + self._heard * RATE / block.rate, block.captured)
        self._put(heard)

    def _checked(self, block: Block) -> Block:
        """``block`` with finite samples: what a broken driver delivers becomes silence, and is told."""
        finite = np.isfinite(block.samples)
        if finite.all():
            return block
        bad = int(np.count_nonzero(~finite))
        text = f"{bad} of {len(finite)} samples are not numbers and became silence; is the driver broken?"
        self._put(Notice(self._topic, text, Severity.WARNING))
        samples = np.where(finite, block.samples, np.float32(0)).astype(np.float32)
        return Block(samples, block.rate, block.first, block.captured, block.gap_ms)

    def _hear_anew(self, rate: int) -> None:
        """At the first block, and before one that does not go on where the last one ended or has another rate."""
        if self._hearing is not None:
            self._flush()
            self.buffer.cut()
        self._hearing = Hearing(rate, self._level)
        self._origin, self._heard = float(self.buffer.end), 0

    def _flush(self) -> None:
        """What the resampler held back goes into the buffer."""
        if self._hearing is not None and self._heard:
            reaches = self._origin + self._heard * RATE / self._hearing.rate
            self.buffer.append(self._hearing.finish(), reaches, self.buffer.captured(reaches))
            self._origin, self._heard, self._hearing = float(self.buffer.end), 0, None

    def _wait_for_sound(self) -> None:
        if self._source.live and not self._stalled and time.monotonic() - self._arrived > STALL_S:
            self._stalled = True
            self.buffer.cut()
