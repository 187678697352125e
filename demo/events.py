"""What the session tells whoever draws it. Frozen, Qt-free, made on the worker thread and read on the drawing one.

All times of audio are milliseconds since the source was opened; they never jump back when settings change.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime import Result


class Severity(Enum):
    """How loudly a notice is shown."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Notice:
    """One sentence for people. A notice of the same ``topic`` replaces the one before; an empty text takes it away.

    Topics: "microphone", "level", "overload", "engine", "file", "recording", "settings".
    """

    topic: str
    text: str
    severity: Severity = Severity.INFO


@dataclass(frozen=True)
class Block:
    """Mono samples (n,) float32 in -1..1 at ``rate`` Hz, as a source delivers them."""

    samples: NDArray[np.float32]
    rate: int
    first: int  # index of the first sample since the source was opened, counting only samples delivered
    captured: float  # time.monotonic() when the last sample existed
    gap_ms: float = 0.0  # audio known to be lost right before this block (unplugged, overflow)


@dataclass(frozen=True)
class Lane:
    """One bundle loaded into one engine; the main one is lane 0, the other of compare mode lane 1."""

    index: int
    title: str  # "reference, fp32, onnxruntime on CPU, 1 thread"
    bundle: str
    scheme: str  # of the encoder: fp32, int8 …
    engine: str
    device: str
    threads: int
    chunk_ms: float
    left_chunks: int
    moe_layers: tuple[str, ...]
    experts: int
    active: int


@dataclass(frozen=True)
class Ready:
    """Recognizers are loaded, or were loaded anew after new settings."""

    lanes: tuple[Lane, ...]


@dataclass(frozen=True)
class Opened:
    """Audio comes from here now."""

    name: str
    rate: int  # Hz
    live: bool  # a microphone, not a file
    seconds: float | None = None  # length of a file


@dataclass(frozen=True)
class Ended:
    """The source has ended or was stopped, and everything it delivered is decoded."""

    reason: str


@dataclass(frozen=True)
class Heard:
    """What came in since the last one: for the meters and the spectrogram."""

    columns: NDArray[np.float32]  # (frames, 80) log-mel, 10 ms each
    wave: NDArray[np.float32]  # (points, 2) lowest and highest sample per 10 ms, -1..1
    rms_db: float  # dBFS
    peak_db: float  # dBFS


@dataclass(frozen=True)
class Partial:
    """The utterance being spoken, before rescoring; replaces the lane's previous one. Empty text: nothing yet."""

    lane: int
    result: Result  # times are milliseconds since the source was opened
    lag_ms: float  # from the capture of the last sample this text covers to now


@dataclass(frozen=True)
class Final:
    """An utterance is finished; it will not change."""

    lane: int
    result: Result
    lag_ms: float  # from the capture of the sample that ended the utterance to now


@dataclass(frozen=True)
class ExpertLoad:
    """Who worked during the last second of audio."""

    lane: int
    share: NDArray[np.float32]  # (layers, experts), rows sum to 1 (or 0 before the first chunk)
    entropy: NDArray[np.float32]  # (layers,) in 0..1: 1 = all experts alike


@dataclass(frozen=True)
class Meters:
    """Speed and load, about twice a second."""

    lane: int
    chunk_p50_ms: float
    chunk_p95_ms: float
    rtf: float  # of the last seconds
    lag_ms: float  # audio captured and not decoded yet
    cpu_percent: float  # of this process; 100 = one core
    memory_mb: float  # resident, of this process
    dropped_blocks: int  # must stay 0


@dataclass(frozen=True)
class Failed:
    """Nothing can go on until something is changed; one line that says what and how."""

    text: str


Event = Notice | Ready | Opened | Ended | Heard | Partial | Final | ExpertLoad | Meters | Failed


def shifted(result: Result, ms: float) -> Result:
    """``result`` with all times moved by ``ms``."""

    def move(item: Any) -> Any:
        return dataclasses.replace(item, start_ms=item.start_ms + ms, end_ms=item.end_ms + ms)

    return dataclasses.replace(
        move(result), words=tuple(move(w) for w in result.words), tokens=tuple(move(t) for t in result.tokens)
    )
