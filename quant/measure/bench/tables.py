"""Tables of latency, memory and size for people, and what they mean."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.runtime.engines.threads import thread_count
from edge.system.console import table_console
from quant.measure.bench.measure import RATIOS, BenchResult, BundleBench
from quant.measure.bench.stats import Ratio
from quant.measure.labels import bundle_names, engine_names


def print_result(result: BenchResult, console: Console | None = None) -> None:
    """Tables and what they mean."""
    console = console or table_console()
    new, old = result.bundle, result.baseline
    shown = [new] if old is None else [old, new]
    labels = [new.name]
    if old is not None:
        engines = engine_names(new.inference, old.inference)
        labels = [*reversed(bundle_names(new.name, new.scheme, old.name, old.scheme, engines))]
    what = "noise" if result.synthetic else f"{len(result.audio)} recordings"
    table = Table(
        title=f"{what}, {sum(result.audio.values()):.1f} s, {result.rounds} rounds, {result.loads} loads; "
        f"{new.chunk_ms:g} ms chunks, {thread_count(new.threads)}; {result.machine['cpu']}",
        box=SIMPLE_HEAD,
    )
    table.add_column("", no_wrap=True)
    for label in labels:
        table.add_column(escape(label), justify="right", min_width=9)
    if old is not None:
        table.add_column("ratio", justify="right")
        table.add_column("95 %", justify="right", no_wrap=True)
    for title, values, key in _rows(shown):
        compared = result.ratios.get(key) if old is not None else None
        table.add_row(title, *values, *([] if old is None else _cells(compared)))
    console.print(table)
    if old is not None:
        for line in in_words(result, labels[1], labels[0]):
            console.print(line, highlight=False, markup=False)
        if new.second_pass != old.second_pass:
            only = labels[1] if new.second_pass else labels[0]
            text = f"only {only} has a second pass: compare finishing with --reencode or --no-reencode for both"
            console.print(text, highlight=False, markup=False)
    console.print(_load(result), highlight=False, markup=False)


def in_words(result: BenchResult, new: str, old: str) -> list[str]:
    """One sentence per ratio that matters."""
    return [
        f"{RATIOS[key]}: {sentence(result.ratios[key], new, old)}"
        for key in ("chunk", "finish", "memory_added", "bytes")
        if key in result.ratios
    ]


def sentence(found: Ratio, new: str, old: str) -> str:
    """A ratio in plain words."""
    if found.low is None or found.high is None:
        return f"{new} takes {found.value:.2f} of {old}"
    if found.low <= 1 <= found.high:
        return f"{new} and {old} cannot be told apart ({found.low:.2f} to {found.high:.2f} of it, 95 %)"
    return f"{new} takes {found.value:.2f} of {old} ({found.low:.2f} to {found.high:.2f}, 95 %)"


def _rows(shown: list[BundleBench]) -> list[tuple[str, list[str], str]]:
    """Title, one value per bundle, key of the ratio."""
    second = ", second pass" if shown[-1].second_pass else ""
    rows = [
        ("experts, precision", [f"{b.experts} x {b.scheme}" if b.experts else b.scheme for b in shown], ""),
        ("engine", [b.inference.title for b in shown], ""),
        ("float weights stored as", [b.storage for b in shown], ""),
        ("chunk, ms: p50", [f"{b.chunk.p50:.2f}" for b in shown], "chunk"),
        ("  p95", [f"{b.chunk.p95:.2f}" for b in shown], ""),
        ("  p99", [f"{b.chunk.p99:.2f}" for b in shown], ""),
        ("encoder alone, ms: p50", [f"{b.engine.p50:.2f}" for b in shown], "engine"),
        ("  p95", [f"{b.engine.p95:.2f}" for b in shown], ""),
        ("  p99", [f"{b.engine.p99:.2f}" for b in shown], ""),
        ("finish, ms: p50", [f"{b.finish.p50:.1f}" for b in shown], "finish"),
        ("  p95", [f"{b.finish.p95:.1f}" for b in shown], ""),
        (f"  of it rescoring{second}", [f"{b.rescoring.p50:.1f}" for b in shown], "rescoring"),
        ("first text: ms of audio", [_number(b.first_partial_audio_ms, 0) for b in shown], ""),
        ("  ms of computing", [_number(b.first_partial_wall_ms, 1) for b in shown], ""),
        ("real-time factor", [f"{b.rtf:.4f}" for b in shown], "rtf"),
    ]
    processes = [b.process for b in shown]
    if all(p is not None for p in processes):
        ready = [p for p in processes if p is not None]
        rows += [
            ("load, ms", [f"{p.load_ms:.0f}" for p in ready], "load"),
            ("peak memory, MB", [_number(p.peak_mb, 1) for p in ready], "memory"),
            ("  of it added by the bundle", [_number(p.added_mb, 1) for p in ready], "memory_added"),
        ]
    return [*rows, ("on disk, MB", [f"{b.bytes / 2**20:.1f}" for b in shown], "bytes")]


def _cells(found: Ratio | None) -> list[str]:
    if found is None:
        return ["", ""]
    return [f"{found.value:.2f}", "" if found.low is None else f"{found.low:.2f}..{found.high:.2f}"]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _load(result: BenchResult) -> str:
    load, cores = result.machine["load_1min"], result.machine["cores"]
    flags = " ".join(result.machine["flags"]) or "none known"
    text = f"{result.bundle.chunks} chunks each; instruction sets: {flags}"
    if load is not None and load > cores:
        text += f"; the machine was busy (load {load} on {cores} cores): trust the ratios more than the times"
    return text
