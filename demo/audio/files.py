"""A file at the pace of real time, as a microphone would deliver it; or as fast as it can be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.audio.source import Item
from demo.events import Block, Notice, Severity
from edge.runtime import AudioError, Clip, audio_seconds, read_blocks
from edge.runtime.audio import checked
from edge.runtime.channels import ChannelMixer

BLOCK_S = 0.05  # seconds of audio per block


class FileSource:
    """An audio file, mono, in blocks of 50 ms.

    Args:
        path: any format that libsndfile or an installed ffmpeg reads.
        channel: heard alone, from 1; None: as ``edge.runtime.channels`` decides.
        pace: seconds of audio per second; None does not wait at all. Time begins with the first ``read``. A reader
            that is late gets the blocks it missed at once, with the time at which they were due in ``captured``:
            nothing is skipped.

    Raises:
        AudioError: the file is missing, empty or no audio.
        ValueError: a pace that is not positive.
    """

    live = False

    def __init__(self, path: Path | str, pace: float | None = 1.0, channel: int | None = None) -> None:
        if pace is not None and not pace > 0:
            raise ValueError(f"pace: expected a positive number or None, found {pace!r}")
        self.path = Path(path)
        self.name = self.path.name
        self.seconds: float = audio_seconds(self.path, exact=False)
        self._pace = pace
        self._notes: list[str] = []  # of the file, for the user
        self._mixer: ChannelMixer | None = None
        self._told = False
        self._blocks: Iterator[tuple[NDArray[Any], int]] = read_blocks(
            Clip(self.path, channel=channel), BLOCK_S, self._notes.append
        )
        self._delivered = 0
        self._began: float | None = None
        self._next: tuple[NDArray[np.float32], int] | AudioError | None = self._step()
        if isinstance(self._next, AudioError):
            raise self._next
        self.rate: int = self._next[1] if self._next else 0

    @property
    def ended(self) -> bool:
        """Whether everything was read."""
        return self._next is None and not self._notes

    def read(self, timeout_s: float) -> Item | None:
        """The next block once it is due; None after ``timeout_s``, or at the end. Damage ends it with a notice."""
        if self._mixer is not None and self._mixer.taken is not None and not self._told:
            self._told = True
            return Notice("file", f"{self.name}: {self._mixer.told()}", Severity.INFO)
        if self._notes:
            return Notice("file", self._notes.pop(), Severity.WARNING)
        if self._next is None:
            return None
        if isinstance(self._next, AudioError):
            damage = str(self._next)
            self.close()
            return Notice("file", damage, Severity.ERROR)
        if self._began is None:
            self._began = time.monotonic()
        samples, rate = self._next
        due = time.monotonic()
        if self._pace is not None:
            due = self._began + (self._delivered + len(samples)) / rate / self._pace
            wait = due - time.monotonic()
            if wait > timeout_s:
                time.sleep(max(0.0, timeout_s))
                return None
            if wait > 0:
                time.sleep(wait)
        block = Block(samples, rate, self._delivered, due)
        self._delivered += len(samples)
        self._next = self._step()
        return block

    def _step(self) -> tuple[NDArray[np.float32], int] | AudioError | None:
        at = self._delivered
        try:
            samples, rate = next(self._blocks)
        except StopIteration:
            return None
        except AudioError as error:
            return error
        try:
            self._mixer = self._mixer or ChannelMixer(rate)
            return self._mixer.accept(checked(samples)), rate
        except AudioError as error:
            return AudioError(f"{self.path}: {error} (after {at / rate:.2f} s)")

    def close(self) -> None:
        """Forget the rest and release the file."""
        self._next = None
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()
