"""Latency and memory beside each other, ratios last."""

from __future__ import annotations

from markupsafe import Markup

from quant.measure.bench.measure import BundleBench
from quant.measure.bench.stats import Ratio
from quant.report.content import Report
from quant.report.template import Table, render

_COLUMNS = "lrrrd"


def bench_section(report: Report) -> Markup:
    """Time on the left, bytes on the right."""
    bench, head = report.bench, ["", *report.names, "ratio", "95 % interval"]
    rows = _sizes(report)
    if bench is None or bench.baseline is None:
        return render("bench_missing.html.j2", command=report.commands["bench"], table=Table(head, rows, _COLUMNS))
    new, old = bench.bundle, bench.baseline
    space = [row[:4] for row in [*_processes(new, old, bench.ratios), *rows]]
    return render(
        "bench.html.j2",
        bench=bench,
        names=report.names,
        time=Table(head, _timing(new, old, bench.ratios), _COLUMNS),
        space=Table(head[:4], space, "lrrr"),
    )


def _sizes(report: Report) -> list[list[object]]:
    size = report.size
    small, large, full = (f"{value / 1e6:.2f}" for value in (size.bundle, size.baseline, size.fp32))
    rows: list[list[object]] = [["on disk, MB", large, small, f"{size.bundle / size.baseline:.2f}", ""]]
    if size.fp32 != size.baseline:
        rows.append(["on disk against fp32 storage, MB", full, small, f"{size.ratio:.2f}", ""])
    return rows


def _timing(new: BundleBench, old: BundleBench, ratios: dict[str, Ratio]) -> list[list[object]]:
    rows: list[list[object]] = []
    kinds = (("chunk", "chunk"), ("engine", "of that, the encoder graph"), ("finish", "finalisation"))
    for key, title in kinds:
        for quantile in ("p50", "p95", "p99") if key != "engine" else ("p50",):
            first = quantile == "p50"
            before, after = (getattr(getattr(side, key), quantile) for side in (old, new))
            compared = _ratio(ratios.get(key)) if first else [_over(after, before), ""]
            label = f"{title}, median, ms" if first else f"{title}, {quantile}, ms"
            rows.append([label, f"{before:.2f}", f"{after:.2f}", *compared])
    rows.append(["real-time factor", f"{old.rtf:.4f}", f"{new.rtf:.4f}", *_ratio(ratios.get("rtf"))])
    for before, after, title in (
        (old.first_partial_audio_ms, new.first_partial_audio_ms, "first partial, audio needed, ms"),
        (old.first_partial_wall_ms, new.first_partial_wall_ms, "first partial, computing, ms"),
    ):
        if before is not None and after is not None:
            rows.append([title, f"{before:.1f}", f"{after:.1f}", _over(after, before), ""])
    return rows


def _processes(new: BundleBench, old: BundleBench, ratios: dict[str, Ratio]) -> list[list[object]]:
    if new.process is None or old.process is None:
        return []
    rows: list[list[object]] = []
    for key, title, name in (
        ("load_ms", "load, ms", "load"),
        ("peak_mb", "peak memory of the process, MB", "memory"),
        ("added_mb", "of that, for the bundle, MB", "memory_added"),
    ):
        before, after = getattr(old.process, key), getattr(new.process, key)
        if before is not None and after is not None:
            rows.append([title, f"{before:.1f}", f"{after:.1f}", *_ratio(ratios.get(name))])
    return rows


def _ratio(ratio: Ratio | None) -> list[object]:
    if ratio is None:
        return ["–", ""]
    return [f"{ratio.value:.2f}", "" if ratio.low is None else f"{ratio.low:.2f} to {ratio.high:.2f}"]


def _over(new: float, old: float) -> str:
    return f"{new / old:.2f}" if old else "–"
