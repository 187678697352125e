"""The audio of one source while somebody still needs it, when it was captured, and where utterances must end."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

RATE = 16000  # Hz; positions are samples at this rate since the source was opened
PER_MS = RATE / 1000
MB_PER_HOUR = RATE * 4 * 3600 / 1e6  # of audio that waits: float32, 230 MB


class AudioBuffer:
    """Mono float32 samples from the oldest that a lane may read again to the newest.

    It grows while recognizers are behind, because audio is never dropped, and shrinks again when they have caught up.
    Cuts are positions where every lane ends its utterance: a pause in the audio, the end of a recording, a command.
    They are counted from 0 since the source was opened, and each lane passes each of them once.
    """

    def __init__(self) -> None:
        self.end = 0
        """Position after the newest sample."""
        self._samples: NDArray[np.float32] = np.zeros(RATE, np.float32)
        self._first = 0  # position of _samples[0]
        self._needed = 0  # position of the oldest sample that must stay
        self._marks: list[tuple[float, float]] = []  # (position after a block, when its last sample existed)
        self._cuts: list[int] = []
        self._passed = 0  # cuts forgotten

    def append(self, samples: NDArray[np.float32], reaches: float, captured: float) -> None:
        """Add samples.

        Args:
            samples: (n,) float32 in -1..1 at 16 kHz.
            reaches: position up to which the source has delivered; a resampler may still hold some of it.
            captured: ``time.monotonic()`` when the sample at ``reaches`` existed.
        """
        used = self.end - self._first
        if used + len(samples) > len(self._samples):
            kept = self._samples[self._needed - self._first : used]
            self._samples = np.empty(max(RATE, 2 * (len(kept) + len(samples))), np.float32)
            self._samples[: len(kept)] = kept
            self._first, used = self._needed, len(kept)
        self._samples[used : used + len(samples)] = samples
        self.end += len(samples)
        if not self._marks or reaches > self._marks[-1][0]:
            self._marks.append((reaches, captured))

    def read(self, start: int, count: int) -> NDArray[np.float32]:
        """A copy of ``count`` samples from position ``start``; what was forgotten or is yet to come is an error."""
        if not self._needed <= start <= start + count <= self.end:
            raise IndexError(f"expected positions within {self._needed}..{self.end}, found {start}..{start + count}")
        return self._samples[start - self._first : start - self._first + count].copy()

    def captured(self, position: float) -> float:
        """``time.monotonic()`` when the sample before ``position`` existed; of the newest when there is no such."""
        if not self._marks:
            raise IndexError("expected audio in the buffer, found none")
        index = min(bisect.bisect_left(self._marks, (position, 0.0)), len(self._marks) - 1)
        reaches, captured = self._marks[index]
        return captured - max(0.0, reaches - position) / RATE

    def cut(self) -> int:
        """Let every lane end its utterance here. Returns the cut's number; a second one at the same place is it too."""
        if not self._cuts or self._cuts[-1] != self.end:
            self._cuts.append(self.end)
        return self._passed + len(self._cuts) - 1

    @property
    def cuts(self) -> int:
        """Cuts made so far."""
        return self._passed + len(self._cuts)

    def cut_at(self, number: int) -> int | None:
        """Position of cut ``number``; None when it was not made yet."""
        index = number - self._passed
        return self._cuts[index] if 0 <= index < len(self._cuts) else None

    def forget(self, position: int, cut: int) -> None:
        """Nobody needs samples before ``position`` or cuts before number ``cut`` any more."""
        self._needed = max(self._needed, min(position, self.end))
        stale = max(0, min(cut - self._passed, len(self._cuts) - 1))  # the last stays: a second one there is known
        del self._cuts[:stale]
        self._passed += stale
        old = bisect.bisect_left(self._marks, (self._needed, 0.0))
        if old > 512:
            del self._marks[:old]
        if len(self._samples) > 60 * RATE and (self.end - self._needed) * 4 < len(self._samples):
            kept = self._samples[self._needed - self._first : self.end - self._first]
            self._samples = np.empty(max(RATE, 2 * len(kept)), np.float32)
            self._samples[: len(kept)] = kept
            self._first = self._needed

    @property
    def held_mb(self) -> float:
        """Memory of the samples, in MB."""
        return self._samples.nbytes / 1e6
