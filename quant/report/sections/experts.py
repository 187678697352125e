"""Experts and layers: coverage, routing agreement, sensitivity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from quant.measure.agreement import NEAR_TIE, LayerAgreement, ModeAgreement
from quant.precision.sensitivity_result import ExpertError, PartError
from quant.report.content import Report
from quant.report.data import MIN_AGREEMENT
from quant.report.names import percent, short
from quant.report.plots import Cell, bar, heat_map
from quant.report.template import Table, emphasised, render

_LISTED = 12  # parts in each of two columns; the rest is folded away


def coverage_section(report: Report) -> Markup:
    """Heat map of the share of frames, flagged experts framed."""
    coverage = report.coverage
    if coverage is None:
        text = "No calibration profile was given."
        return render("missing.html.j2", text=text, command=report.commands["calibrate"])
    if not coverage.layers:
        return render("note.html.j2", text="The model has no mixture of experts.")
    cells = []
    for row in coverage.layers:
        line = []
        for index, e in enumerate(row.experts):
            title = (
                f"{short(row.layer)}, expert {index}: {e.frames} frames, {100 * e.share:.2f} % of the "
                f"layer's; {100 * e.weight:.2f} % of the routing weight"
                + ("" if e.covered else "; below the rule, borrows")
            )
            line.append(Cell(f"{100 * e.share:.1f}", math.sqrt(e.share), title, not e.covered))
        cells.append(line)
    most = max(len(row.experts) for row in coverage.layers)
    flagged = [e for row in coverage.layers for e in row.experts if not e.covered]
    rows, columns = [short(row.layer) for row in coverage.layers], [f"e{i}" for i in range(most)]
    return render(
        "coverage.html.j2",
        coverage=coverage,
        flagged=len(flagged),
        experts=sum(len(row.experts) for row in coverage.layers),
        weight=100 * sum(e.weight for e in flagged) / len(coverage.layers),
        picture=heat_map(rows, columns, cells, "coverage, % of frames"),
    )


def agreement_section(report: Report) -> Markup:
    """Layer by layer in every mode."""
    agreement = report.agreement
    if agreement is None:
        text = "Routing agreement was not measured."
        return render("missing.html.j2", text=text, command=report.commands["report"])
    modes = agreement.modes
    rows: list[list[object]] = []
    for layers in zip(*(mode.layers for mode in modes)):
        rows.append([short(layers[0].layer), *(cell for layer in layers for cell in _agreed(layer))])
    routing = None
    if rows:
        means = [("", percent(mode.set_same), percent(mode.best_same), "", "") for mode in modes]
        rows.append(["mean", *(cell for mean in means for cell in mean)])
        head = ["layer", *(["90 to 100 %", "same set", "same best", "gap, flips / all", "near-ties"] * len(modes))]
        groups = [("", 1), *((_mode(mode), 5) for mode in modes)]
        routing = Table(head, rows, "l" + "lrrrr" * len(modes), [len(rows) - 1], groups)
    head = ["mode", "frames", "KL mean, nat", "95 %", "99 %", "largest"]
    head += ["difference, mean", "largest", "same best token"]
    errors = [_errors(mode) for mode in modes]
    return render(
        "agreement.html.j2",
        agreement=agreement,
        near_tie=NEAR_TIE,
        routing=routing,
        errors=Table(head, errors, "lrrrrrrrr"),
    )


def _errors(mode: ModeAgreement) -> list[object]:
    found = mode.log_probs
    values = (found.kl_mean, found.kl_p95, found.kl_p99, found.kl_largest, found.mean, found.largest)
    return [_mode(mode), found.frames, *(f"{value:.2g}" for value in values), percent(found.best_same)]


def _mode(mode: ModeAgreement) -> str:
    return f"{mode.mode}, chunks of {mode.chunk} frames" if mode.chunk > 0 else "full context"


def _agreed(layer: LayerAgreement) -> list[object]:
    low, share = layer.set_same < MIN_AGREEMENT, percent(layer.set_same)
    return [
        bar(layer.set_same, 0.9, 1.0, MIN_AGREEMENT, low, 90),
        emphasised(share) if low else share,
        percent(layer.best_same),
        f"{_gap(layer.flipped_gap)} / {_gap(layer.median_gap)}",
        "–" if layer.near_ties is None else f"{100 * layer.near_ties:.0f} %",
    ]


def _gap(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def sensitivity_section(report: Report) -> Markup:
    """The parts that cost most, and every expert."""
    found = report.sensitivity
    if found is None:
        text = "Sensitivity was not measured: it needs the checkpoint, and for static int8 the profile."
        return render("missing.html.j2", text=text, command=report.commands["sensitivity"])
    ranked = sorted(found.parts, key=lambda part: -part.kl)
    top = max((part.kl for part in ranked), default=0.0) or 1.0
    usual = Counter(part.precision for part in ranked).most_common(1)[0][0] if ranked else ""
    rows = [_part(part, usual, top) for part in ranked]

    def table(part: Sequence[Sequence[object]]) -> Table:
        return Table(["part", "", "KL", "routing"], part, "llrr")

    return render(
        "sensitivity.html.j2",
        found=found,
        whole=(_micro(found.encoder.kl), _micro(found.decoder.kl)),
        left=table(rows[:_LISTED]),
        right=table(rows[_LISTED : 2 * _LISTED]),
        rest=table(rows[2 * _LISTED :]),
        experts=_experts(found.experts) if found.experts else None,
    )


def _part(part: PartError, usual: str, top: float) -> list[object]:
    return [
        short(part.path) + ("" if part.precision == usual else f" ({part.precision})"),
        bar(part.kl, 0.0, top),
        _micro(part.kl),
        "–" if part.routing is None else percent(part.routing),
    ]


def _experts(experts: Sequence[ExpertError]) -> Markup:
    top = max(e.kl for e in experts) or 1.0
    layers = list(dict.fromkeys(e.layer for e in experts))
    most = 1 + max(e.expert for e in experts)
    grid = {(e.layer, e.expert): e for e in experts}
    cells = [[_expert_cell(grid.get((layer, i)), top) for i in range(most)] for layer in layers]
    columns = [f"e{i}" for i in range(most)]
    return heat_map([short(layer) for layer in layers], columns, cells, "sensitivity of experts")


def _expert_cell(expert: ExpertError | None, top: float) -> Cell:
    if expert is None:
        return Cell("", None)
    title = f"{short(expert.layer)}, expert {expert.expert}: {expert.rows} rows, KL {_micro(expert.kl)}"
    if not expert.rows:
        return Cell("·", None, title, expert.borrowed)
    return Cell(_micro(expert.kl), math.sqrt(expert.kl / top), title, expert.borrowed)


def _micro(nats: float) -> str:
    value = 1e6 * nats
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
