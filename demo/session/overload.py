"""When recognition is slower than speech: how much less to do, decided from how far it is behind.

Level 0 is what the user chose. Each level above takes the next larger chunk, which costs less per second of audio; the
last one also stops partial text. Audio is never dropped at any level: what waits is kept, 230 MB per hour of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LADDER_MS = (160.0, 320.0, 640.0, 1280.0)


@dataclass(frozen=True)
class OverloadOptions:
    """Seconds of wall clock, except where a name says otherwise."""

    limit_s: float = 1.0  # seconds of audio behind that are too much
    patience_s: float = 2.0  # this long above the limit without getting better, before a step up
    shrinking: float = 0.05  # seconds of audio caught up per second that count as getting better
    calm_s: float = 10.0  # this long below ``small_s`` before a step down
    small_s: float = 0.3  # seconds of audio behind that are none
    relapse_s: float = 30.0  # a step up this soon after a step down doubles ``calm_s``
    longest_calm_s: float = 160.0


class Overload:
    """Watches one number and says the level. ``levels`` counts them, level 0 included."""

    def __init__(self, levels: int, options: OverloadOptions | None = None) -> None:
        self.levels, self.options = levels, options or OverloadOptions()
        self.level = 0
        self._calm_s = self.options.calm_s
        self._history: deque[tuple[float, float]] = deque()  # (now, behind) while above the limit, last patience_s
        self._calm_since: float | None = None
        self._stepped_down = -1e9

    def observe(self, now: float, lag_s: float, settled: bool = True) -> int:
        """The level to work at.

        Args:
            now: ``time.monotonic()`` or another steady clock.
            lag_s: seconds of audio captured and not decoded yet.
            settled: False while recognizers are still on their way to the last level: no step is taken then.
        """
        options = self.options
        if not settled:
            self._history.clear()
            self._calm_since = None
        elif lag_s > options.limit_s:
            self._calm_since = None
            self._history.append((now, lag_s))
            began, before = self._history[0]
            if now - began >= options.patience_s:
                if before - lag_s < options.shrinking * (now - began):
                    self._step_up(now)
                while self._history and now - self._history[0][0] >= options.patience_s:
                    self._history.popleft()
        else:
            self._history.clear()
            if lag_s > options.small_s:
                self._calm_since = None
            elif self._calm_since is None:
                self._calm_since = now
            elif now - self._calm_since >= self._calm_s:
                self._step_down(now)
        return self.level

    def _step_up(self, now: float) -> None:
        if self.level + 1 >= self.levels:
            return
        if now - self._stepped_down < self.options.relapse_s:
            self._calm_s = min(2 * self._calm_s, self.options.longest_calm_s)
        self.level += 1
        self._history.clear()

    def _step_down(self, now: float) -> None:
        self._calm_since = now
        if self.level:
            self.level -= 1
            self._stepped_down = now
        elif now - self._stepped_down > self.options.relapse_s:
            self._calm_s = self.options.calm_s  # all is well for long: forget old relapses


def ladder(chunk_ms: float) -> tuple[float, ...]:
    """``chunk_ms`` and the larger ones to fall back on."""
    return (chunk_ms, *(larger for larger in LADDER_MS if larger > chunk_ms))


def describe(level: int, chunk_ms: float, chosen_ms: float, partials: bool, lag_s: float, held_mb: float) -> str:
    """One sentence for the user; empty at level 0."""
    if level == 0:
        return ""
    state = "caught up for now"
    if lag_s >= 1:
        state = f"{lag_s:.0f} s behind" + (f", {held_mb:.0f} MB of audio wait" if lag_s >= 30 else "")
    todo = []
    if chunk_ms != chosen_ms:
        todo.append(f"chunks of {chunk_ms:g} ms instead of {chosen_ms:g} ms")
    if not partials:
        todo.append("text only when an utterance ends")
    return f"This machine is too slow for these settings ({state}): {', '.join(todo)}. No audio is lost."
