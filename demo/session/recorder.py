"""What the source delivered, written as it comes; the transcript beside it when the recording ends."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from demo.events import Lane
from demo.session import subtitles
from demo.session.transcript import Utterance

UNFINISHED = ".recording.wav"  # how a file is called until it is complete; it can be played all the time
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MOST_BYTES = 2**32 - 2**20  # sizes in a WAV header have 32 bits: 12 h at 48 kHz


class WavWriter:
    """A 16-bit mono WAV file that grows; its header is right at least once per second of audio.

    Samples that came from 16 bits go back to the same 16 bits.
    """

    def __init__(self, path: Path, rate: int) -> None:
        """Raises FileExistsError when ``path`` is there."""
        self.path, self.rate, self.samples = path, rate, 0
        self._file: BinaryIO = path.open("xb")
        self._told = 0
        self._tell()

    @property
    def full(self) -> bool:
        """No more fits into a WAV file."""
        return 2 * self.samples >= _MOST_BYTES

    def write(self, samples: NDArray[np.float32]) -> None:
        """Append (n,) float32 in -1..1; beyond that they are clipped."""
        scaled = np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767)
        self._file.write(scaled.astype("<i2").tobytes())
        self.samples += len(samples)
        if self.samples - self._told >= self.rate:
            self._tell()

    def close(self) -> None:
        """Complete the file; a second call does nothing."""
        if not self._file.closed:
            try:
                self._tell()
            finally:
                self._file.close()

    def _tell(self) -> None:
        """Write the header anew and hand everything to the system."""
        size = 2 * self.samples
        header = _HEADER.pack(
            b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, self.rate, 2 * self.rate, 2, 16, b"data", size
        )
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(0, 2)
        self._file.flush()
        self._told = self.samples


@dataclass
class Take:
    """One recording: a WAV file, and the utterances that were finished meanwhile, per lane."""

    wav: WavWriter
    stem: Path
    source: str
    began: str  # local time, ISO 8601
    start_ms: float  # of the source's clock
    end_ms: float = float("inf")
    end_cut: int | None = None  # number of the cut where it ends; None while it goes on
    utterances: dict[int, list[Utterance]] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, source: str, rate: int, start_ms: float) -> Take:
        """Open a new file in ``folder``, which is made when it is not there.

        Raises:
            OSError: the folder cannot be made or written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = time.strftime("u2edge-%Y%m%d-%H%M%S")
        for number in range(1, 1000):
            stem = folder / (name if number == 1 else f"{name}-{number}")
            if any(stem.with_name(stem.name + end).exists() for end in (".wav", ".txt", ".srt", ".json")):
                continue
            try:
                wav = WavWriter(stem.with_name(stem.name + UNFINISHED), rate)
            except FileExistsError:
                continue
            return cls(wav, stem, source, time.strftime("%Y-%m-%dT%H:%M:%S%z"), start_ms)
        raise FileExistsError(17, "too many recordings of the same second", str(folder))

    @property
    def seconds(self) -> float:
        return self.wav.samples / self.wav.rate

    def add(self, lane: int, utterance: Utterance) -> None:
        """A finished utterance; it is kept when it lies within the recording."""
        if utterance.end_ms > self.start_ms and utterance.start_ms < self.end_ms:
            self.utterances.setdefault(lane, []).append(utterance)

    def stop(self, end_ms: float, cut: int) -> None:
        """No more audio; utterances up to ``end_ms`` may still come."""
        self.end_ms, self.end_cut = end_ms, cut
        self.wav.close()

    def save(self, lanes: Sequence[Lane]) -> list[Path]:
        """Give the WAV file its name and write the transcripts of lane 0; the JSON has every lane.

        Raises:
            OSError: no space, no permission; the audio is kept under one name or the other.
        """
        self.wav.close()
        audio = self.stem.with_name(self.stem.name + ".wav")
        self.wav.path.rename(audio)
        about: dict[str, Any] = {
            "audio": audio.name,
            "source": self.source,
            "began": self.began,
            "seconds": round(self.seconds, 3),
            "sample_rate": self.wav.rate,
            "lanes": [_about(lane) for lane in lanes],
        }
        for index in sorted(self.utterances):
            if index:
                others = [subtitles.as_dict(u, self.start_ms) for u in self.utterances[index]]
                about.setdefault("others", {})[str(index)] = others
        return [audio, *subtitles.save(self.stem, self.utterances.get(0, []), about, self.start_ms)]

    def discard(self) -> None:
        """Remove a file without a single sample."""
        self.wav.close()
        self.wav.path.unlink(missing_ok=True)


def _about(lane: Lane) -> dict[str, Any]:
    return {
        "title": lane.title,
        "bundle": lane.bundle,
        "scheme": lane.scheme,
        "engine": lane.engine,
        "device": lane.device,
        "chunk_ms": lane.chunk_ms,
        "left_chunks": lane.left_chunks,
    }
