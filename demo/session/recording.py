"""Which take runs, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.events import Event, Lane, Notice, Severity
from demo.session.audio_buffer import AudioBuffer
from demo.session.recorder import Take
from demo.session.transcript import Utterance

_TOPIC = "recording"


class Recording:
    """Takes one after the other while ``folder`` is set. Errors of the disk become notices."""

    def __init__(self, put: Callable[[Event], None]) -> None:
        self.folder: Path | None = None
        self._put = put
        self._take: Take | None = None
        self._saving: list[Take] = []  # no more audio, but utterances that are yet to be decoded

    def write(self, samples: NDArray[np.float32], rate: int, source: str, now_ms: float, buffer: AudioBuffer) -> None:
        """Samples (n,) of ``source``, whose first is at ``now_ms``. Begins a take where none runs or fits."""
        if self._take is not None and (self._take.wav.full or self._take.wav.rate != rate):
            self.stop(now_ms, buffer)
        if self._take is None and self.folder is not None:
            self._begin(source, rate, now_ms, buffer)
        take = self._take
        if take is None:
            return
        try:
            take.wav.write(samples)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._refuse(f"the recording ended after {take.seconds:.0f} s: {reason}; kept: {take.wav.path}")
            self.stop(now_ms, buffer)

    def _begin(self, source: str, rate: int, now_ms: float, buffer: AudioBuffer) -> None:
        assert self.folder is not None
        buffer.cut()
        try:
            self._take = Take.begin(self.folder, source, rate, now_ms)
        except OSError as error:
            self._refuse(f"cannot record into {self.folder}: {error.strerror or error}")
        else:
            self._put(Notice(_TOPIC, f"recording into {self._take.wav.path}"))

    def stop(self, now_ms: float, buffer: AudioBuffer) -> None:
        """No more audio for the take that runs; it is saved when its last utterance is decoded."""
        take, self._take = self._take, None
        if take is None:
            return
        try:
            take.stop(now_ms, buffer.cut())
        except OSError as error:
            self._refuse(f"{take.wav.path}: {error.strerror or error}")
        self._saving.append(take)

    def add(self, lane: int, utterance: Utterance) -> None:
        """A finished utterance of a lane."""
        for take in [*self._saving, *([self._take] if self._take else [])]:
            take.add(lane, utterance)

    def passed(self, cut: int, lanes: Sequence[Lane]) -> None:
        """Every lane has passed the cuts before number ``cut``: save what ended there."""
        for take in [take for take in self._saving if take.end_cut is not None and take.end_cut < cut]:
            self._saving.remove(take)
            self._save(take, lanes)

    def save(self, lanes: Sequence[Lane]) -> None:
        """Save every take that has ended, with the utterances it has."""
        for take in self._saving:
            self._save(take, lanes)
        self._saving.clear()

    def _save(self, take: Take, lanes: Sequence[Lane]) -> None:
        try:
            if not take.wav.samples:
                take.discard()
                self._put(Notice(_TOPIC, ""))
                return
            paths = take.save(lanes)
        except OSError as error:
            self._refuse(f"cannot save {take.stem}: {error.strerror or error}")
            return
        names = ", ".join(path.suffix for path in paths)
        self._put(Notice(_TOPIC, f"saved {take.seconds:.1f} s as {take.stem} ({names})"))

    def _refuse(self, text: str) -> None:
        self.folder = None
        self._put(Notice(_TOPIC, text, Severity.ERROR))
