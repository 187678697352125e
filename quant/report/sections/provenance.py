"""How to reproduce every number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from quant.report.content import Report
from quant.report.template import Table, render

_COMMANDS = {
    "convert": "Baseline",
    "calibrate": "Calibration profile",
    "quantize": "Bundle",
    "wer": "Word error rates",
    "bench": "Latency, memory, size",
    "report": "Routing agreement, sensitivity and this page",
}


def provenance_section(report: Report) -> Markup:
    """Commands, machine, versions, audio."""
    corpus, heard = report.corpus, None
    if corpus is not None:
        rows: list[tuple[str, object]] = [(f"manifest {p}", f"SHA-256 {s[:16]}") for p, s in corpus.manifests.items()]
        rows += [("split", corpus.split or "all"), ("recordings", corpus.utterances), ("words", corpus.words)]
        rows += [("minutes", f"{corpus.seconds / 60:.1f}"), ("speakers", corpus.speakers)]
        rows += [(f"skipped {name}", why) for name, why in corpus.skipped.items()]
        heard = _pairs(rows)
    return render(
        "provenance.html.j2",
        commands=[(title, report.commands[key]) for key, title in _COMMANDS.items() if report.commands.get(key)],
        machine=_pairs((key, _value(value)) for key, value in report.machine.items()),
        versions=_pairs(report.versions.items()),
        heard=heard,
    )


def _pairs(rows: Iterable[tuple[str, object]]) -> Table:
    return Table(None, [[key.replace("_", " "), value] for key, value in rows], "lw")


def _value(value: Any) -> object:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(_value(v)) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    return value
