"""What a terminal shows of a session: finals scroll up; the rest is redrawn below them, or printed as lines."""

from __future__ import annotations

import re
from collections import deque

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.text import Text

from demo.events import Event, ExpertLoad, Final, Heard, Lane, Meters, Notice, Partial, Ready, Severity
from edge.runtime.engines.threads import thread_count

_BARS = " ▁▂▃▄▅▆▇█"
_STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.ERROR: "red"}
_LINES = 3  # of an utterance that is still being spoken: its end


class View:
    """Takes events; ``draw`` says what to show now."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lanes: tuple[Lane, ...] = ()
        self._notices: dict[str, Notice] = {}
        self._running = False
        self.begin()
        self._running = False

    def begin(self) -> None:
        """A new source."""
        self._running = True
        self._partials: dict[int, str] = {}
        self._printed: dict[int, str] = {}
        self._meters: dict[int, Meters] = {}
        self._experts: ExpertLoad | None = None
        self._level = -120.0  # dBFS
        self._seconds = 0.0
        self._lags: deque[float] = deque(maxlen=1000)  # ms, of text that was shown

    def ready(self, event: Ready) -> None:
        """Name what was loaded."""
        self._lanes = event.lanes
        for lane in event.lanes:
            line = Text("", style="").append(lane.bundle, style="bold")
            line.append(f"  {lane.scheme}, {lane.chunk_ms:g} ms chunks, {thread_count(lane.threads)}, ")
            self.console.print(line.append(f"{lane.engine} on {lane.device}"), soft_wrap=True)

    def see(self, event: Event) -> None:
        """Take any other event."""
        match event:
            case Heard():
                self._seconds += len(event.columns) / 100
                self._level = event.rms_db
            case Partial():
                self._partials[event.lane] = event.result.text
                if event.result.text:
                    self._lags.append(event.lag_ms)
                    self._print_partial(event)
            case Final():
                self._partials[event.lane] = self._printed[event.lane] = ""
                line = Text(f"  {self._label(event.lane, 'recognised:'):<11} ", style="green")
                self.console.print(line.append(event.result.text, style="bold"), soft_wrap=True)
            case Meters():
                self._meters[event.lane] = event
            case ExpertLoad() if event.lane == 0:
                self._experts = event

    def notice(self, notice: Notice) -> None:
        """Shown below while the text is redrawn; else, and when it tells of a file, printed once."""
        before = self._notices.pop(notice.topic, None)
        if not notice.text:
            return
        self._notices[notice.topic] = notice
        redrawn = self._running and self.console.is_terminal and notice.topic not in ("recording", "file")
        # A text that differs in its numbers only was printed already.
        if not redrawn and (before is None or _wordless(before.text) != _wordless(notice.text)):
            self.console.print(Text(f"  {notice.text}", style=_STYLES[notice.severity]), soft_wrap=True)

    def draw(self) -> Group:
        """Everything that changes, a few lines."""
        lines = []
        room = max(20, self.console.width - 14) * _LINES
        for lane in range(max(1, len(self._lanes))):
            text = self._partials.get(lane, "")
            shown = text if len(text) <= room else "…" + text[-room:]
            lines.append(Text(f"  {self._label(lane, '…'):<3} ").append(shown, style="bright_black"))
        filled = int(np.clip((self._level + 60) / 60 * 20, 0, 20))
        colour = "green" if self._level < -3 else "red"
        bar = Text("  ", no_wrap=True, overflow="ellipsis").append("█" * filled, style=colour)
        lines.append(bar.append("·" * (20 - filled), style="dim").append(self._load(), style="dim"))
        lines.append(Text(f"  {self._speed()}", style="dim", no_wrap=True, overflow="ellipsis"))
        if self._experts is not None and self._experts.share.size and self._lanes:
            experts = Text("  experts ", no_wrap=True, overflow="crop")
            lines.append(experts.append(_expert_bars(self._experts.share, self._lanes[0].active), style="cyan"))
        for notice in self._notices.values():
            lines.append(Text(f"  {notice.text}", style=_STYLES[notice.severity]))
        return Group(*lines)

    def summary(self, stopped: bool) -> None:
        """One line about the source that has ended."""
        self._running = False
        parts = [f"{'stopped after ' if stopped else ''}{self._seconds:.1f} s"]
        for index, meters in sorted(self._meters.items()):
            label = self._label(index, "")
            parts.append(f"{label} RTF {meters.rtf:.3f}, chunk p50 {meters.chunk_p50_ms:.1f} ms".strip())
        if self._lags:
            parts.append(f"text {np.median(np.array(self._lags)):.0f} ms after its sound")
        self.console.print(f"  {', '.join(parts)}", style="dim", soft_wrap=True, markup=False)

    def _print_partial(self, event: Partial) -> None:
        """Without a terminal there is nothing to overwrite: changed texts are lines."""
        text = event.result.text
        if not self.console.is_terminal and text != self._printed.get(event.lane):
            self._printed[event.lane] = text
            self.console.print(Text(f"  {self._label(event.lane, ''):<9} … {text}"), soft_wrap=True)

    def _label(self, lane: int, alone: str) -> str:
        """What tells lanes apart: the scheme, if they differ in it."""
        if len(self._lanes) < 2 or lane >= len(self._lanes):
            return alone
        schemes = [lane.scheme for lane in self._lanes]
        return schemes[lane] if len(set(schemes)) == len(schemes) else f"{'AB'[lane]}"

    def _load(self) -> str:
        text = f" {max(self._level, -99):4.0f} dB"
        for meters in self._meters.values():
            return text + f"   CPU {meters.cpu_percent:.0f} %, {meters.memory_mb:.0f} MB"
        return text

    def _speed(self) -> str:
        parts = []
        for index, meters in sorted(self._meters.items()):
            text = f"{self._label(index, '')} chunk {meters.chunk_p50_ms:.0f} ms (p95 {meters.chunk_p95_ms:.0f}), "
            parts.append((text + f"RTF {meters.rtf:.2f}, {meters.lag_ms / 1000:.1f} s behind").strip())
        return "   ".join(parts)


def _expert_bars(share: NDArray[np.float32], active: int) -> str:
    """One bar per expert and layer; full is an expert that every frame went to."""
    heights = np.clip(np.rint(share * max(1, active) * (len(_BARS) - 1)), 0, len(_BARS) - 1).astype(int)
    return " ".join("".join(_BARS[i] for i in row) for row in heights)


def _wordless(text: str) -> str:
    return re.sub(r"[\d.]+", "#", text)
