"""Shared by the demo's tests: the reference bundles, the samples, and a source whose clock is the test's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from places import ROOT

from demo.events import Block, Ended, Event, Failed, Final, Notice, Ready
from demo.session import Session
from demo.settings import Settings
from edge.runtime import DecodeOptions, Recognizer, Result
from edge.runtime.engines.config import EngineConfig

BUNDLE, INT8 = ROOT / "models/reference-bundle", ROOT / "models/reference-int8"
SAMPLES = sorted((ROOT / "models/reference/samples").glob("human-*.flac"))
PATIENCE_S = 60.0  # a limit for a broken session, not a measurement

Samples = NDArray[np.float32]


def sample(index: int) -> Samples:
    """A bundled recording, (n,) float32 at 16 kHz."""
    samples, rate = soundfile.read(SAMPLES[index], dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    return samples


def quiet(seconds: float, rate: int = 16000) -> Samples:
    """A pause as a room has it."""
    return np.random.default_rng(0).normal(0, 2e-4, round(seconds * rate)).astype(np.float32)


def speech(*parts: int) -> Samples:
    """Recordings with pauses of 1.6 s after each, which end an utterance."""
    return np.concatenate([part for index in parts for part in (sample(index), quiet(1.6))])


class Feed:
    """Delivers blocks up to ``limit`` seconds, which a test raises; None: all there is."""

    name, live, seconds = "feed", False, None

    def __init__(
        self,
        samples: Samples,
        rate: int = 16000,
        limit: float | None = None,
        gaps: dict[float, float] | None = None,
        age_s: float = 0.0,
    ) -> None:
        self.rate, self.closed = rate, False
        self._samples, self._at, self._limit = samples, 0, limit
        self._gaps = {round(at * rate): ms for at, ms in (gaps or {}).items()}  # seconds of audio -> ms lost there
        self._age_s = age_s
        self._more = threading.Event()

    def allow(self, limit: float | None) -> None:
        """Deliver up to here."""
        self._limit = limit
        self._more.set()

    @property
    def ended(self) -> bool:
        return self.closed or self._at >= len(self._samples)

    def read(self, timeout_s: float) -> Block | Notice | None:
        stop = len(self._samples) if self._limit is None else min(len(self._samples), round(self._limit * self.rate))
        if self.ended or self._at >= stop:
            self._more.wait(timeout_s)
            self._more.clear()
            return None
        end = min(stop, self._at + self.rate // 20, *(at for at in self._gaps if at > self._at), len(self._samples))
        block = Block(
            self._samples[self._at : end],
            self.rate,
            self._at,
            time.monotonic() - self._age_s,
            self._gaps.get(self._at, 0),
        )
        self._at = end
        return block

    def close(self) -> None:
        self.closed = True


class Watched:
    """A session and every event it has told so far."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self._fresh: deque[Event] = deque()

    def until(self, found: Callable[[Event], bool]) -> Event:
        """Wait for an event; those before and with it are in ``events``."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self._fresh += self.session.poll()
            while self._fresh:
                event = self._fresh.popleft()
                self.events.append(event)
                assert not isinstance(event, Failed) or found(event), event
                if found(event):
                    return event
            time.sleep(0.01)
        raise AssertionError(f"nothing of the kind within {PATIENCE_S:g} s after {self.events[-3:]}")

    def kind(self, kind: type[Any]) -> Any:
        return self.until(lambda event: isinstance(event, kind))

    def hear(self, feed: Any, paced: bool = False) -> None:
        """Hear ``feed`` in the background; not paced, so that a slow machine is no overload."""
        self.session.hear(lambda: feed, paced=paced)

    def heard(self, feed: Any) -> None:
        """Hear ``feed`` to its end."""
        self.hear(feed)
        self.kind(Ended)

    def settled(self) -> None:
        """Wait until every command so far was carried out."""
        done = threading.Event()
        self.session._worker.post(done.set)
        assert done.wait(PATIENCE_S)

    def of(self, kind: type[Any], lane: int = 0) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind) and getattr(event, "lane", lane) == lane]

    def results(self, lane: int = 0) -> list[Result]:
        return [event.result for event in self.of(Final, lane)]

    def texts(self, lane: int = 0) -> list[str]:
        return [result.text for result in self.results(lane)]

    def notices(self, topic: str) -> list[Notice]:
        return [event for event in self.of(Notice) if event.topic == topic]


@contextmanager
def running(settings: Settings) -> Iterator[Watched]:
    """A started session with its recognizers loaded."""
    session = Session(settings, verify=False)
    watched = Watched(session)
    session.start()
    try:
        watched.kind(Ready)
        yield watched
    finally:
        assert session.close(), "the session's thread hangs"


def settings(**changes: Any) -> Settings:
    """One thread, chunks of 640 ms."""
    return Settings(**{"bundle": BUNDLE, "engine": EngineConfig(threads=1), "chunk_ms": 640.0} | changes)


_recognizers: dict[Path, Recognizer] = {}


def recognizer(bundle: Path = BUNDLE) -> Recognizer:
    if bundle not in _recognizers:
        _recognizers[bundle] = Recognizer.load(bundle, EngineConfig(threads=1), verify=False)
    return _recognizers[bundle]


def transcribed(samples: Samples, options: DecodeOptions, bundle: Path = BUNDLE, rate: int = 16000) -> list[Result]:
    """What the recognizer says without a session."""
    return list(recognizer(bundle).transcribe(samples, rate, options))
