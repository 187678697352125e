"""``u2edge wer``: tables for people, JSON for reports, an exit code for CI."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from calibration.corpus import read_corpus
from edge.console import table_console
from quant.bench.command import names, write_json
from quant.inference import Inference, alike
from quant.wer.compare import Selection, report
from quant.wer.decode import Work
from quant.wer.measure import MeasureError, Measurement, ModeReport, WerOptions, WerReport, choose_modes, measure_wer
from quant.wer.score import Difference, normalise

_WORDS, _UTTERANCES = 10, 5  # rows for people; the JSON has 20
_LINE_S = 10.0  # between lines of progress where there is no terminal


@dataclass(frozen=True)
class Outputs:
    """What to write and when to fail."""

    max_drop: float | None = None  # points
    json: Path | None = None
    errors: Path | None = None


def run(
    bundle: Path,
    baseline: Path | None,
    selection: Selection,
    wanted: tuple[Any, Any, bool | None],
    decode: tuple[float | None, int, int],
    work: Work,
    outputs: Outputs,
    inference: tuple[Inference, Inference] = (Inference(), Inference()),
) -> int:
    """Measure and print.

    Args:
        bundle, baseline: directories.
        selection: of the corpus.
        wanted: context, rescoring and reencode, as for ``choose_modes``.
        decode: chunk_ms, left_chunks, beam.
        work: how the work is done.
        outputs: files, and the limit.
        inference: of the bundle and of the baseline.

    Returns:
        0, or 1 when a mode lost more than ``outputs.max_drop`` points.
    """
    if outputs.max_drop is not None and baseline is None:
        raise MeasureError("--max-drop: expected a bundle to compare with, found none; add --baseline BUNDLE")
    corpus = read_corpus(selection.manifests, selection.split, selection.limit, selection.match)
    pairs = zip((baseline, bundle), reversed(inference))
    loaded = [how.load(path, work.threads) for path, how in pairs if path is not None]
    modes = choose_modes([r.manifest for r in loaded], *wanted)
    options = WerOptions(*decode)
    measured: list[Measurement] = []
    for position, recognizer in enumerate(loaded, 1):
        title = f"{recognizer.manifest.name} ({position} of {len(loaded)})" if len(loaded) > 1 else "transcribing"
        with Ticker(title) as ticker:
            found = measure_wer(
                recognizer,
                corpus,
                modes,
                options,
                jobs=work.jobs,
                skip_bad=work.skip_bad,
                cache=work.cache,
                progress=ticker.show,
            )
        measured.append(found)
        corpus = [u for u in corpus if u.name not in found.skipped]
        for reason in found.skipped.values():
            print(f"skipped: {reason}", file=sys.stderr)
    result = report(corpus, selection, measured[-1], measured[0] if baseline is not None else None)
    if outputs.json is not None:
        write_json(asdict(result), outputs.json)
    if outputs.errors is not None:
        _write_errors(result, outputs.errors)
    print_report(result)
    return _verdict(result, outputs.max_drop)


def _verdict(result: WerReport, max_drop: float | None) -> int:
    """1 and a line on standard error when a mode lost more than ``max_drop`` points."""
    if max_drop is None:
        return 0
    drops = [(m.difference.points, m.key) for m in result.modes if m.difference and m.difference.points is not None]
    if not drops:
        raise MeasureError("--max-drop: expected a corpus with reference words, found none")
    over = [f"{points:.2f} in {key}" for points, key in drops if points > max_drop + 1e-9]
    if over:
        print(f"error: WER rises by more than {max_drop:g} points: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


class Ticker:
    """Progress with the time left on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self, title: str) -> None:
        self.title, self._began, self._shown = title, time.monotonic(), time.monotonic()
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

    def show(self, done: float, total: float) -> None:
        """``done`` of ``total`` seconds of audio."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._shown >= _LINE_S or done >= total:
            self._shown = now
            left = (now - self._began) / max(done, 1e-9) * (total - done)
            print(f"{self.title}: {100 * done / total:.0f} %, {left:.0f} s left", file=sys.stderr, flush=True)


def _write_errors(result: WerReport, path: Path) -> None:
    """One line per recording and mode whose text is not the reference."""
    lines = []
    for mode in result.modes:
        for u in result.utterances:
            if normalise(u.bundle[mode.key]) != normalise(u.reference):
                row = {"audio": u.name, "mode": mode.key, "reference": u.reference, "bundle": u.bundle[mode.key]}
                if u.baseline is not None:
                    row["baseline"] = u.baseline[mode.key]
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def print_report(result: WerReport, console: Console | None = None) -> None:
    """Tables and what they mean."""
    console = console or table_console()
    corpus, old = result.corpus, result.baseline
    new_name, old_name = result.bundle.name, ""
    if old is not None:
        assert result.baseline_inference is not None
        engines = alike(result.inference, result.baseline_inference)
        new_name, old_name = names(result.bundle.name, result.bundle.scheme, old.name, old.scheme, engines)
    title = f"{corpus.utterances} recordings, {corpus.words} words, {corpus.seconds / 60:.1f} min"
    if result.inference != Inference() and old is None:
        title += f", {result.inference.title}"
    console.print(_overall(result, title, old_name, new_name))
    console.print(_breakdown(result))
    if len(corpus.groups) > 1:
        console.print(_groups(result))
    worst = max(result.modes, key=_damage)
    if worst.words:
        console.print(_words(worst, old_name, new_name))
    if worst.utterances:
        console.print(_utterances(worst, old_name, new_name))
    if corpus.without_text:
        text = (
            f"{corpus.without_text} recordings have an empty reference: every word recognised in them is an insertion"
        )
        console.print(text, highlight=False)
    console.print(f"text is compared in {result.normalisation}", highlight=False)
    if old is not None:
        for mode in result.modes:
            console.print(f"{mode.title}: {in_words(mode, new_name, old_name)}", highlight=False, markup=False)


def in_words(mode: ModeReport, new: str, old: str) -> str:
    """What the difference of one mode means."""
    found = mode.difference
    if found is None or found.points is None or found.low is None or found.high is None:
        return "no reference words"
    if not found.changed:
        return f"{new} and {old} write the same text everywhere"
    if found.low <= 0 <= found.high:
        return (
            f"no difference between {new} and {old} can be told from these recordings "
            f"({found.points:+.2f} points, {found.low:+.2f} to {found.high:+.2f})"
        )
    verb = "loses" if found.points > 0 else "gains"
    low, high = sorted((abs(found.low), abs(found.high)))
    return f"{new} {verb} {abs(found.points):.2f} points against {old} ({low:.2f} to {high:.2f}, 95 %)"


def _damage(mode: ModeReport) -> float:
    if mode.difference is not None and mode.difference.points is not None:
        return mode.difference.points
    return mode.bundle.wer or 0.0


def _overall(result: WerReport, title: str, old: str, new: str) -> Table:
    table = Table(title=f"WER %, {escape(new)}: {title}", box=SIMPLE_HEAD)
    table.add_column("mode", no_wrap=True)
    for header in [escape(old), escape(new), "points", "95 %", "P(worse)"] if old else ["WER %"]:
        table.add_column(header, justify="right", no_wrap=header in ("95 %", "P(worse)"))
    table.add_column("CER %", justify="right")
    for mode in result.modes:
        cells = [_percent(mode.bundle.wer)]
        if mode.baseline is not None and mode.difference is not None:
            d = mode.difference
            interval = "-" if d.low is None or d.high is None else f"{d.low:+.2f}..{d.high:+.2f}"
            chance = "-" if d.degradation is None else f"{d.degradation:.2f}"
            cells = [_percent(mode.baseline.wer), *cells, _points(d), interval, chance]
        table.add_row(mode.title, *cells, _percent(mode.bundle.cer))
    return table


def _breakdown(result: WerReport) -> Table:
    compared = ", change against the baseline in brackets" if result.baseline else ""
    table = Table(title=f"Errors{compared}", box=SIMPLE_HEAD)
    table.add_column("mode", no_wrap=True)
    for header in ("sub", "del", "ins", "wrong files", *(["changed"] if compared else [])):
        table.add_column(header, justify="right")
    for mode in result.modes:
        counts = []
        for name in ("substitutions", "deletions", "insertions", "wrong"):
            now = getattr(mode.bundle, name)
            change = now - getattr(mode.baseline, name) if mode.baseline is not None else 0
            counts.append(f"{now} ({change:+d})" if change else str(now))
        table.add_row(mode.title, *counts, *([str(mode.difference.changed)] if mode.difference else []))
    return table


def _groups(result: WerReport) -> Table:
    compared = ", points against the baseline in brackets" if result.baseline else ""
    table = Table(title=f"WER % by source{compared}", box=SIMPLE_HEAD)
    table.add_column("source", overflow="fold")
    table.add_column("files", justify="right")
    for mode in result.modes:
        table.add_column(mode.title.replace(", ", "\n"), justify="right")
    for name, count in result.corpus.groups.items():
        cells = []
        for mode in result.modes:
            group = mode.groups[name]
            points = f" ({_points(group.difference)})" if group.difference is not None else ""
            cells.append(_percent(group.bundle.wer) + points)
        table.add_row(escape(name), str(count), *cells)
    return table


def _words(mode: ModeReport, old: str, new: str) -> Table:
    table = Table(
        title=f"Words {'whose errors rise most' if old else 'most often wrong'}, {mode.title}", box=SIMPLE_HEAD
    )
    for header in ("word", "spoken", *([escape(old), escape(new)] if old else ["wrong"]), "became"):
        table.add_column(header, justify="left" if header in ("word", "became") else "right")
    for w in mode.words[:_WORDS]:
        became = [f"{text or 'nothing'} {count}" for text, count in list(w.became.items())[:4]]
        became += [f"inserted {w.inserted}"] if w.inserted else []
        before = [str(w.baseline)] if old else []
        table.add_row(escape(w.word), str(w.spoken), *before, str(w.bundle), escape(", ".join(became)))
    return table


def _utterances(mode: ModeReport, old: str, new: str) -> Table:
    table = Table(
        title=f"Recordings {'whose errors rise most' if old else 'with most errors'}, {mode.title}", box=SIMPLE_HEAD
    )
    for header in ("recording", "errors", "spoken", *([escape(old), escape(new)] if old else ["written"])):
        table.add_column(header, justify="right" if header == "errors" else "left", overflow="fold")
    for u in mode.utterances[:_UTTERANCES]:
        errors = str(u.bundle_errors) if u.baseline_errors is None else f"{u.baseline_errors} → {u.bundle_errors}"
        before = [escape(u.baseline or "")] if old else []
        table.add_row(escape(u.name), errors, escape(u.reference), *before, escape(u.bundle))
    return table


def _points(found: Difference) -> str:
    return "-" if found.points is None else f"{found.points:+.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
