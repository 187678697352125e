"""Carries out what ``Overload`` decides, and tells the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demo.events import Event, Notice, Severity
from demo.session.lanes import LaneDecoder
from demo.session.loader import Loader
from demo.session.overload import Overload, describe

_EVERY_S = 0.25  # between looks
_TELL_S = 2.0  # between notices that say the same with other numbers


class LoadShedding:
    """Watches how far lanes are behind and gives them larger chunks as soon as those are warm: words go on."""

    def __init__(
        self, put: Callable[[Event], None], loader: Loader, post: Callable[[Callable[[], None]], None]
    ) -> None:
        self._put, self._loader, self._post = put, loader, post
        self._overload = Overload(1)
        self._warm = 0  # level whose options were computed with before
        self._looked = self._told = 0.0
        self._shown = ""
        self._turn = 0  # counts resets, so that a late answer of the loader is not taken for a new one

    def reset(self, lanes: Sequence[LaneDecoder]) -> None:
        """New settings or a new source: begin with what the user chose."""
        self._overload = Overload(2 + max((len(lane.prepared.fallbacks) for lane in lanes), default=0))
        self._warm, self._turn = 0, self._turn + 1
        self._tell("")

    def observe(self, now: float, lanes: Sequence[LaneDecoder], held_mb: float) -> None:
        """Look at the lanes, now and then."""
        if now - self._looked < _EVERY_S or not lanes:
            return
        self._looked = now
        lag = max(lane.lag_s for lane in lanes)
        before = self._overload.level
        level = self._overload.observe(now, lag, all(lane.level == before for lane in lanes))
        if level > before:
            turn = self._turn
            prepared = [lane.prepared for lane in lanes]
            self._loader.warm(prepared, level, lambda: self._post(lambda: self._warmed(turn, level)))
        elif level < before:
            self._warm = level
        if level != before or now - self._told >= _TELL_S:
            self._told = now
            self._tell(self._text(lanes, level, lag, held_mb))

    def settle(self, lane: LaneDecoder) -> None:
        """Give ``lane`` the level that was decided, as soon as its chunks are warm."""
        level = self._overload.level
        if lane.level != level and self._warm == level:
            lane.change(level)

    def _warmed(self, turn: int, level: int) -> None:
        if turn == self._turn and level == self._overload.level:
            self._warm = level

    def _text(self, lanes: Sequence[LaneDecoder], level: int, lag_s: float, held_mb: float) -> str:
        lane = max(lanes, key=lambda lane: len(lane.prepared.fallbacks))
        fallbacks = lane.prepared.fallbacks
        options = fallbacks[min(level, len(fallbacks)) - 1] if level and fallbacks else lane.prepared.options
        chosen = lane.prepared.lane.chunk_ms
        return describe(level, options.chunk_ms or chosen, chosen, level <= len(fallbacks), lag_s, held_mb)

    def _tell(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self._put(Notice("overload", text, Severity.WARNING if text else Severity.INFO))
