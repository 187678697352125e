"""The report as one HTML page: no scripts, no network, every text escaped."""

from __future__ import annotations

import importlib.resources
from typing import Any

from markupsafe import Markup

from quant.report.content import Report
from quant.report.data import Bar
from quant.report.plots import gauge
from quant.report.sections.bench import bench_section
from quant.report.sections.experts import agreement_section, coverage_section, sensitivity_section
from quant.report.sections.plan import plan_section, tuning_section
from quant.report.sections.provenance import provenance_section
from quant.report.sections.words import damage_section, wer_section
from quant.report.template import render as template

_STATE = {True: ("pass", "✓ pass"), False: ("miss", "✗ missed"), None: ("open", "not measured")}
_SCALES = {"drop": (-0.4, 0.8), "agreement": (0.9, 1.0), "size": (0.0, 1.0), "chunk": (0.0, 1.5)}
_SECTIONS = {
    "Word error rate": wer_section,
    "Latency, memory, size": bench_section,
    "Coverage in calibration": coverage_section,
    "Routing agreement": agreement_section,
    "Sensitivity: error when only one part is quantized": sensitivity_section,
    "What fell back or borrowed, and why": plan_section,
    "Tuning": tuning_section,
    "Most damaged words and utterances": damage_section,
    "How to reproduce every number": provenance_section,
}


def render(report: Report) -> str:
    """The whole page."""
    style = importlib.resources.files("quant.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    corpus = report.corpus
    page = template(
        "page.html.j2",
        report=report,
        style=Markup(style),
        audio=f"{corpus.utterances} recordings, {corpus.seconds / 60:.1f} min" if corpus else "none",
        tiles=[_tile(bar) for bar in report.verdict.bars],
        sections=[(title, section(report)) for title, section in _SECTIONS.items()],
    )
    return str(page)


def _tile(bar: Bar) -> dict[str, Any]:
    kind, state = _STATE[bar.passed]
    picture = Markup("")
    if bar.value is not None:
        low, high = _SCALES[bar.key]
        picture = gauge(bar.value, bar.limit, high, low, bool(bar.passed))
    return {"bar": bar, "kind": kind, "state": state, "picture": picture}
