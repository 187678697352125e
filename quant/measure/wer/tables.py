"""Tables of word error rates for people, and what they mean."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.runtime.engines.config import EngineConfig
from edge.system.console import table_console
from quant.measure.labels import bundle_names, engine_names
from quant.measure.wer.measure import ModeReport, WerReport
from quant.measure.wer.score import Difference
from quant.measure.wer.scoring import Scoring

_WORDS, _UTTERANCES = 10, 5  # rows for people; the JSON has 20


def print_report(result: WerReport, console: Console | None = None) -> None:
    """Tables and what they mean."""
    console = console or table_console()
    corpus, old = result.corpus, result.baseline
    new_name, old_name = result.bundle.name, ""
    if old is not None:
        assert result.baseline_inference is not None
        engines = engine_names(result.inference, result.baseline_inference)
        new_name, old_name = bundle_names(result.bundle.name, result.bundle.scheme, old.name, old.scheme, engines)
    unit = Scoring(result.rate).unit
    title = f"{corpus.utterances} recordings, {corpus.words} {unit}, {corpus.seconds / 60:.1f} min"
    if not result.inference.same_engine(EngineConfig()) and old is None:
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
    if result.hint:
        console.print(result.hint, highlight=False, markup=False)
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
    table = Table(title=f"{result.rate.upper()} %, {escape(new)}: {title}", box=SIMPLE_HEAD)
    table.add_column("mode", no_wrap=True)
    for header in [escape(old), escape(new), "points", "95 %", "P(worse)"] if old else [f"{result.rate.upper()} %"]:
        table.add_column(header, justify="right", no_wrap=header in ("95 %", "P(worse)"))
    if result.rate == "wer":
        table.add_column("CER %", justify="right")
    for mode in result.modes:
        cells = [_percent(mode.bundle.wer)]
        if mode.baseline is not None and mode.difference is not None:
            d = mode.difference
            interval = "-" if d.low is None or d.high is None else f"{d.low:+.2f}..{d.high:+.2f}"
            chance = "-" if d.degradation is None else f"{d.degradation:.2f}"
            cells = [_percent(mode.baseline.wer), *cells, _points(d), interval, chance]
        table.add_row(mode.title, *cells, *([_percent(mode.bundle.cer)] if result.rate == "wer" else []))
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
    table = Table(title=f"{result.rate.upper()} % by source{compared}", box=SIMPLE_HEAD)
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
