"""Speed of a lane and load of this process."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SPAN_S = 10.0  # of audio, for the real-time factor
CHUNKS = 100  # for the percentiles


class Speed:
    """Chunk latency and real-time factor of the last moments. Of fixed size."""

    def __init__(self) -> None:
        self._chunks: deque[float] = deque(maxlen=CHUNKS)
        self._spent: deque[tuple[float, float]] = deque()  # (seconds of audio, seconds of work)
        self._audio = self._work = 0.0

    def add(self, audio_s: float, work_s: float, chunks_ms: Iterable[float]) -> None:
        """``work_s`` seconds of wall clock went into ``audio_s`` seconds of audio."""
        self._chunks.extend(chunks_ms)
        self._spent.append((audio_s, work_s))
        self._audio += audio_s
        self._work += work_s
        while len(self._spent) > 1 and self._audio - self._spent[0][0] >= SPAN_S:
            audio, work = self._spent.popleft()
            self._audio -= audio
            self._work -= work

    @property
    def rtf(self) -> float:
        """Seconds of work per second of audio; 0 before any."""
        return max(0.0, self._work) / self._audio if self._audio > 1e-9 else 0.0

    def chunk_ms(self, percent: float) -> float:
        """Milliseconds within which ``percent`` % of the last chunks were encoded and searched; 0 before the first."""
        return float(np.percentile(np.fromiter(self._chunks, float), percent)) if self._chunks else 0.0


class Load:
    """CPU and memory of this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._percent = 0.0

    def cpu_percent(self) -> float:
        """Since the last call that was at least 0.2 s ago, all threads together; 100 is one core."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall >= 0.2:
            self._percent = 100.0 * (cpu - self._cpu) / (wall - self._wall)
            self._wall, self._cpu = wall, cpu
        return self._percent

    @staticmethod
    def memory_mb() -> float:
        """Resident memory in MB; the highest so far where the system tells no other; 0 when it tells nothing."""
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        except (OSError, ValueError, IndexError):
            pass
        try:
            import psutil
        except ModuleNotFoundError:
            pass
        else:
            return float(psutil.Process().memory_info().rss) / 1e6
        try:
            import resource
        except ModuleNotFoundError:  # Windows
            return 0.0
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / 1e6 if sys.platform == "darwin" else highest / 1e3
