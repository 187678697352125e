"""Events on their way to whoever draws: in order, and few, however rarely they are fetched."""

from __future__ import annotations

import itertools
import threading
from collections import deque

import numpy as np

from demo.events import Event, ExpertLoad, Final, Heard, Meters, Notice, Opened, Partial

ONCE = 200  # finals, and other events that are not replaced, waiting at most; the oldest go (the transcript has all)
COLUMNS = 3000  # 10 ms columns of one Heard: 30 s


class Mailbox:
    """Filled by the worker, emptied by the drawing thread. Of bounded size.

    What only the last of matters (partial text, meters, experts, the notice of a topic) is replaced; sound is joined.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._ordered: deque[tuple[int, Event]] = deque(maxlen=ONCE)
        self._latest: dict[tuple[object, ...], tuple[int, Event]] = {}
        self._heard: list[Heard] = []
        self._heard_number = 0

    def put(self, event: Event) -> None:
        with self._lock:
            number = next(self._numbers)
            if isinstance(event, Heard):
                self._hear(event, number)
                return
            key = _key(event)
            if key is not None:
                self._latest[key] = (number, event)
                return
            if isinstance(event, Final):
                self._latest.pop((Partial, event.lane), None)
            elif isinstance(event, Opened):  # sound and text of another source
                self._heard.clear()
                self._latest = {key: held for key, held in self._latest.items() if key[0] is Notice}
            self._ordered.append((number, event))

    def take(self) -> list[Event]:
        """Everything since the last call, oldest first."""
        with self._lock:
            found = [*self._ordered, *self._latest.values()]
            if self._heard:
                found.append((self._heard_number, _joined(self._heard)))
            self._ordered.clear()
            self._latest.clear()
            self._heard = []
        return [event for _, event in sorted(found, key=lambda item: item[0])]

    def _hear(self, event: Heard, number: int) -> None:
        self._heard.append(event)
        self._heard_number = number
        if len(self._heard) >= 256:
            self._heard = [_joined(self._heard)]


def _key(event: Event) -> tuple[object, ...] | None:
    if isinstance(event, (Partial, Meters, ExpertLoad)):
        return type(event), event.lane
    return (Notice, event.topic) if isinstance(event, Notice) else None


def _joined(heard: list[Heard]) -> Heard:
    """One event for all: loudness averaged as power, the highest peak, the last COLUMNS columns."""
    if len(heard) == 1:
        return heard[0]
    power = float(np.mean([10.0 ** (h.rms_db / 10) for h in heard]))
    return Heard(
        columns=np.concatenate([h.columns for h in heard])[-COLUMNS:],
        wave=np.concatenate([h.wave for h in heard])[-COLUMNS:],
        rms_db=float(10 * np.log10(max(power, 1e-12))),
        peak_db=max(h.peak_db for h in heard),
    )
