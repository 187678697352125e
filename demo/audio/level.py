"""How loud it is, and whether the user should do something about it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.events import Block, Notice, Severity

SILENCE_DB = -120.0  # dBFS shown for digital silence
TOPIC = "level"

_FULL_SCALE = 0.999  # of 1.0: 16-bit full scale is 32767/32768
_RUN = 3  # neighbouring samples at full scale: a wave that was cut off, not one that just reaches the top
_CLIP_BLOCKS, _CLIP_S = 2, 2.0  # as many such blocks within so many seconds: one knock is no reason to complain
_MUTED_DB, _UNMUTED_DB, _MUTED_S = -75.0, -70.0, 5.0  # peak; the noise of a 16-bit microphone that is on is above it
_QUIET_DB, _FINE_DB = -45.0, -40.0  # RMS of speech; people close to a microphone reach -35 to -15
_CONTRAST_DB, _SPEECH_S = 10.0, 0.5  # blocks that stand out from the background by so much, so many seconds: speech
_OFF_DB = -90.0  # RMS; below it is no room
_WINDOW_S, _ENOUGH_S, _EVERY_S = 10.0, 3.0, 0.25  # of audio: looked at, needed at least, between two looks

_MICROPHONE = {
    "clips": "The microphone is too loud and clips: lower its gain, or speak from further away.",
    "muted": "The microphone gives no signal: is it muted?",
    "quiet": "The microphone is quiet ({db:.0f} dBFS while speaking): raise its gain, or come closer.",
}
_FILE = {
    "clips": "The recording is clipped: expect more errors.",
    "muted": "The recording is silent here.",
    "quiet": "The recording is quiet ({db:.0f} dBFS while speaking): expect more errors.",
}


def rms_db(samples: NDArray[np.float32]) -> float:
    """Root mean square of (n,) in dB relative to full scale 1.0: a sine of amplitude 1 has -3.01; at least -120."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return max(SILENCE_DB, 10 * math.log10(power)) if power > 0 else SILENCE_DB


def peak_db(samples: NDArray[np.float32]) -> float:
    """Largest absolute sample of (n,) in dB relative to full scale 1.0; at least -120."""
    peak = float(np.abs(samples).max(initial=0.0))
    return max(SILENCE_DB, 20 * math.log10(peak)) if peak > 0 else SILENCE_DB


def clips(samples: NDArray[np.float32]) -> bool:
    """Whether three neighbours of (n,) are at full scale."""
    full = np.abs(samples) >= _FULL_SCALE
    if not full.any():
        return False
    runs = full[: -_RUN + 1].copy()
    for shift in range(1, _RUN):
        runs &= full[shift : len(full) - _RUN + 1 + shift]
    return bool(runs.any())


@dataclass(frozen=True)
class _Heard:
    seconds: float
    rms: float  # dBFS
    peak: float  # dBFS
    clipped: bool


class LevelWatch:
    """Level of every block, and a notice of topic "level" when it becomes bad or good again.

    Too loud: the wave is cut off. No signal: five seconds below the noise of any microphone. Too quiet: somebody
    speaks (half a second of the last ten stands out from the rest by 10 dB) but below -45 dBFS; fine again above -40.
    """

    def __init__(self, live: bool = True) -> None:
        self.rms_db = SILENCE_DB  # dBFS of the last block
        self.peak_db = SILENCE_DB
        self._texts = _MICROPHONE if live else _FILE
        self._blocks: deque[_Heard] = deque()
        self._seconds = self._unseen = 0.0
        self._fault: str | None = None

    def add(self, block: Block) -> Notice | None:
        """Take the next block; a notice when what the user should know has changed. An empty text: fine again."""
        seconds = len(block.samples) / block.rate
        heard = _Heard(seconds, rms_db(block.samples), peak_db(block.samples), clips(block.samples))
        self.rms_db, self.peak_db = heard.rms, heard.peak
        self._blocks.append(heard)
        self._seconds += seconds
        while self._seconds - self._blocks[0].seconds >= _WINDOW_S:
            self._seconds -= self._blocks.popleft().seconds
        self._unseen += seconds
        if self._unseen < _EVERY_S:
            return None
        self._unseen = 0.0
        before, self._fault = self._fault, self._judge()
        if self._fault == before:
            return None
        if self._fault is None:
            return Notice(TOPIC, "")
        return Notice(TOPIC, self._texts[self._fault].format(db=self._speech()), Severity.WARNING)

    def _judge(self) -> str | None:
        if sum(block.clipped for block in self._last(_CLIP_S)) >= _CLIP_BLOCKS:
            return "clips"
        recent = max(block.peak for block in self._last(_MUTED_S))
        if self._seconds >= _MUTED_S and recent < (_UNMUTED_DB if self._fault == "muted" else _MUTED_DB):
            return "muted"
        speech = self._speech()
        if speech is None:  # a pause: nothing new is known
            return "quiet" if self._fault == "quiet" else None
        return "quiet" if speech < (_FINE_DB if self._fault == "quiet" else _QUIET_DB) else None

    def _last(self, seconds: float) -> list[_Heard]:
        found: list[_Heard] = []
        for block in reversed(self._blocks):
            found.append(block)
            seconds -= block.seconds
            if seconds <= 1e-9:
                break
        return found

    def _speech(self) -> float | None:
        """RMS in dBFS of the louder half of the speech in the window; None when there is none, or too little."""
        heard = [block for block in self._blocks if block.rms > _OFF_DB]
        if sum(block.seconds for block in heard) < _ENOUGH_S:
            return None
        background = float(np.percentile([block.rms for block in heard], 20))
        speech = [block for block in heard if block.rms >= background + _CONTRAST_DB]
        if sum(block.seconds for block in speech) < _SPEECH_S:
            return None
        return float(np.percentile([block.rms for block in speech], 75))
