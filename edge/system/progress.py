"""Progress of long work on standard error: a bar with the time left on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_S = 10.0  # between lines where there is no terminal


class Ticker:
    """Use as ``with Ticker("listening") as ticker: ticker.show(done, total)``; any unit will do."""

    def __init__(self, title: str) -> None:
        self.title, self._began, self._shown = title, time.monotonic(), time.monotonic()
        self._first: float | None = None  # what was done before: of a run that goes on
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(escape(title))

    def __enter__(self) -> Ticker:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, line: str) -> None:
        """One line that stays, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self, done: float, total: float) -> None:
        """``done`` of ``total`` is done."""
        if self._first is None:
            self._first = done
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._shown >= _LINE_S or done >= total:
            self._shown = now
            left = (now - self._began) / max(done - self._first, 1e-9) * (total - done)
            percent = 100 * done / total if total else 100.0
            print(f"{self.title}: {percent:.0f} %, {_clock(left)} left", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """42 s, 7 min, 3.2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
