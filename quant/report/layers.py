"""The sections of the report about experts and layers: coverage, routing agreement, sensitivity."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from quant.measure.agreement import NEAR_TIE
from quant.report.data import MIN_AGREEMENT, percent, short
from quant.report.plots import Cell, Markup, bar, heat_map
from quant.report.table import details, join, missing, note, table

_ERRORS = ("kl_mean", "kl_p95", "kl_p99", "kl_largest", "mean", "largest")
_LISTED = 12  # parts in each of two columns; the rest is folded away


def coverage_section(data: dict[str, Any]) -> Markup:
    """Heat map of the share of frames, flagged experts framed."""
    coverage = data["coverage"]
    if not coverage or not coverage["layers"]:
        text = "No calibration profile was given." if not coverage else "The model has no mixture of experts."
        return missing(text, data["commands"]["calibrate"]) if not coverage else note(text)
    rule, layers = coverage["rule"], coverage["layers"]
    cells = []
    for row in layers:
        line = []
        for index, e in enumerate(row["experts"]):
            title = (
                f"{short(row['layer'])}, expert {index}: {e['frames']} frames, {100 * e['share']:.2f} % of the "
                f"layer's; {100 * e['weight']:.2f} % of the routing weight"
                + ("" if e["covered"] else "; below the rule, borrows")
            )
            line.append(Cell(f"{100 * e['share']:.1f}", math.sqrt(e["share"]), title, not e["covered"]))
        cells.append(line)
    most = max(len(row["experts"]) for row in layers)
    flagged = [e for row in layers for e in row["experts"] if not e["covered"]]
    weight = sum(e["weight"] for e in flagged) / len(layers)
    text = (
        f"Share of the layer's frames that passed through each expert, in %, over {coverage['utterances']} recordings "
        f"({coverage['seconds'] / 60:.1f} min). {len(flagged)} of {sum(len(r['experts']) for r in layers)} experts are "
        f"below the rule ({100 * rule['share']:g} % of the frames, or {rule['rows_per_hidden']:g} frames per hidden "
        f"unit) and borrow scales; together they carry {100 * weight:.2f} % of the routing weight."
    )
    picture = heat_map(
        [short(r["layer"]) for r in layers], [f"e{i}" for i in range(most)], cells, "coverage, % of frames"
    )
    key = Markup('<figcaption><span class="key"></span> below the rule</figcaption>')
    return join((note(text), Markup(f'<figure><div class="scroll">{picture}</div>'), key, Markup("</figure>")))


def agreement_section(data: dict[str, Any]) -> Markup:
    """Layer by layer in every mode."""
    agreement = data["agreement"]
    if not agreement:
        return missing("Routing agreement was not measured.", data["commands"]["report"])
    parts = [
        note(
            f"Share of frames whose set of {agreement['active']} experts is the same in both bundles, on "
            f"{agreement['utterances']} recordings ({agreement['seconds'] / 60:.1f} min). The gap (median) is between "
            "the last chosen and the first rejected router logit of the baseline; a flip at a small gap trades experts "
            "that mattered about equally (near-tie: gap below "
            f"{NEAR_TIE})."
        )
    ]
    modes = agreement["modes"]
    rows: list[list[object]] = []
    for index in range(len(modes[0]["layers"])):
        layers = [mode["layers"][index] for mode in modes]
        rows.append([short(layers[0]["layer"]), *(cell for layer in layers for cell in _agreed(layer))])
    if rows:
        means = [("", percent(m["set_same"]), percent(m["best_same"]), "", "") for m in modes]
        rows.append(["mean", *(cell for mean in means for cell in mean)])
        head = ["layer", *(["90 to 100 %", "same set", "same best", "gap, flips / all", "near-ties"] * len(modes))]
        groups = [("", 1), *((_mode(mode), 5) for mode in modes)]
        parts.append(table(head, rows, "l" + "lrrrr" * len(modes), [len(rows) - 1], groups))
    else:
        parts.append(note("No mixture of experts: nothing to route."))
    parts.append(Markup("<h3>CTC log-probabilities against the baseline's</h3>"))
    errors = [
        [
            _mode(mode),
            mode["log_probs"]["frames"],
            *(
                f"{mode['log_probs'][key]:.2g}"
                for key in ("kl_mean", "kl_p95", "kl_p99", "kl_largest", "mean", "largest")
            ),
            percent(mode["log_probs"]["best_same"]),
        ]
        for mode in modes
    ]
    head = ["mode", "frames", "KL mean, nat", "95 %", "99 %", "largest"]
    head += ["difference, mean", "largest", "same best token"]
    parts.append(table(head, errors, "lrrrrrrrr"))
    return join(parts)


def _mode(mode: dict[str, Any]) -> str:
    return f"{mode['mode']}, chunks of {mode['chunk']} frames" if mode["chunk"] > 0 else "full context"


def _agreed(layer: dict[str, Any]) -> list[object]:
    low, share = layer["set_same"] < MIN_AGREEMENT, percent(layer["set_same"])
    return [
        bar(layer["set_same"], 0.9, 1.0, MIN_AGREEMENT, low, 90),
        Markup(f'<span class="miss">{share}</span>') if low else share,
        percent(layer["best_same"]),
        f"{_gap(layer['flipped_gap'])} / {_gap(layer['median_gap'])}",
        "–" if layer["near_ties"] is None else f"{100 * layer['near_ties']:.0f} %",
    ]


def _gap(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def sensitivity_section(data: dict[str, Any]) -> Markup:
    """The parts that cost most, and every expert."""
    found = data["sensitivity"]
    if not found:
        text = "Sensitivity was not measured: it needs the checkpoint, and for static int8 the profile."
        return missing(text, data["commands"]["sensitivity"])
    ranked = sorted(found["parts"], key=lambda part: -part["kl"])
    top = max((part["kl"] for part in ranked), default=0.0) or 1.0
    usual = Counter(part["precision"] for part in ranked).most_common(1)[0][0] if ranked else ""
    rows = [
        [
            short(part["path"]) + ("" if part["precision"] == usual else f" ({part['precision']})"),
            bar(part["kl"], 0.0, top),
            _micro(part["kl"]),
            "–" if part["routing"] is None else percent(part["routing"]),
        ]
        for part in ranked
    ]
    head = ["part", "", "KL", "routing"]
    columns = "llrr"
    whole = found["encoder"], found["decoder"]
    chunk = f"chunks of {found['chunk']} frames" if found["chunk"] > 0 else "full context"
    text = (
        "KL divergence of the output distribution from fp32's in millionths of a nat, mean per frame (encoder, CTC) or "
        f"token (decoders), simulated on {found['utterances']} recordings ({found['seconds']:.0f} s, {found['frames']} "
        f"frames, {chunk}). Everything quantized at once: {_micro(whole[0]['kl'])} (CTC), "
        f"{_micro(whole[1]['kl'])} (decoders). Routing: share of frames that keep their experts in the "
        "layers after the part."
    )
    parts = [note(text), Markup('<div class="two"><div>'), table(head, rows[:_LISTED], columns)]
    parts.append(Markup("</div><div>"))
    parts.append(table(head, rows[_LISTED : 2 * _LISTED], columns) if len(rows) > _LISTED else Markup(""))
    parts.append(Markup("</div></div>"))
    if len(rows) > 2 * _LISTED:
        parts.append(
            details(f"{len(rows) - 2 * _LISTED} more parts, which cost less", table(head, rows[2 * _LISTED :], columns))
        )
    if found["experts"]:
        parts += [Markup("<h3>Every expert alone</h3>"), _experts(found["experts"])]
    return join(parts)


def _experts(experts: list[dict[str, Any]]) -> Markup:
    top = max(e["kl"] for e in experts) or 1.0
    layers = list(dict.fromkeys(e["layer"] for e in experts))
    most = 1 + max(e["expert"] for e in experts)
    grid = {(e["layer"], e["expert"]): e for e in experts}
    cells = [[_expert_cell(grid.get((layer, i)), top) for i in range(most)] for layer in layers]
    picture = heat_map(
        [short(layer) for layer in layers], [f"e{i}" for i in range(most)], cells, "sensitivity of experts"
    )
    return Markup(
        f'<figure><div class="scroll">{picture}</div><figcaption>millionths of a nat; · no frame of these recordings '
        'passed through it; <span class="key"></span> borrowed its scales</figcaption></figure>'
    )


def _expert_cell(expert: dict[str, Any] | None, top: float) -> Cell:
    if expert is None:
        return Cell("", None)
    title = f"{short(expert['layer'])}, expert {expert['expert']}: {expert['rows']} rows, KL {_micro(expert['kl'])}"
    if not expert["rows"]:
        return Cell("·", None, title, expert["borrowed"])
    return Cell(_micro(expert["kl"]), math.sqrt(expert["kl"] / top), title, expert["borrowed"])


def _micro(nats: float) -> str:
    value = 1e6 * nats
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
