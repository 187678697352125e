"""Word error rates, and what was damaged most."""

from __future__ import annotations

import difflib

from markupsafe import Markup, escape

from quant.measure.wer.measure import GroupReport, ModeReport
from quant.measure.wer.score import Rate
from quant.measure.wer.scoring import Scoring
from quant.report.content import Report
from quant.report.data import MAX_DROP, compared, measured
from quant.report.names import points
from quant.report.plots import interval
from quant.report.template import Table, emphasised, render

_LISTED = 12  # words and recordings shown; the rest is in report.json
_KINDS = ("substitutions", "deletions", "insertions")


def wer_section(report: Report) -> Markup:
    """Mode by mode: both rates, the difference with its interval, and the kinds of error."""
    wer = report.wer
    if wer is None:
        return render("missing.html.j2", text="Word error rates were not measured.", command=report.commands["wer"])
    reach = max([0.5, *(max(abs(i.low), abs(i.high)) for _, i in compared(wer))]) * 1.1
    before, after = report.names
    head = ["mode", f"{before} %", f"{after} %", "points", "95 % interval", f"dashed: the limit, +{MAX_DROP:.1f}"]
    head += ["sub", "del", "ins", "texts changed", "worse / better"]
    columns = "lrrrrlrrrrr"
    several = [_row(f"{mode.title}: {name}", group, reach) for mode in wer.modes for name, group in mode.groups.items()]
    return render(
        "wer.html.j2",
        corpus=wer.corpus,
        unit=Scoring(wer.rate).unit,
        rate=wer.rate.upper(),
        normalisation=wer.normalisation,
        hint=wer.hint,
        resamples=wer.bootstrap["resamples"],
        names=report.names,
        table=Table(head, [_row(mode.title, mode, reach) for mode in wer.modes], columns),
        sources=Table(head, several, columns) if len(wer.corpus.groups) > 1 else None,
    )


def _row(title: str, row: ModeReport | GroupReport, reach: float) -> list[object]:
    new, old, found = row.bundle, row.baseline, measured(row.difference)
    rates = [_rate(old), _rate(new)]
    if found is None or old is None or row.difference is None:
        return [title, *rates, "–", "–", "", *(getattr(new, kind) for kind in _KINDS), "–", "–"]
    return [
        title,
        *rates,
        emphasised(points(found.points)) if found.points > MAX_DROP else points(found.points),
        f"{points(found.low)} to {points(found.high)}",
        interval(found.points, found.low, found.high, reach, MAX_DROP),
        *(f"{getattr(old, kind)} → {getattr(new, kind)}" for kind in _KINDS),
        row.difference.changed,
        f"{row.difference.worse} / {row.difference.better}",
    ]


def _rate(rate: Rate | None) -> str:
    return "–" if rate is None or rate.wer is None else f"{rate.wer:.2f}"


def damage_section(report: Report) -> Markup:
    """Words and recordings that lost most, in the mode that lost most."""
    if report.wer is None:
        return render("missing.html.j2", text="Word error rates were not measured.", command=report.commands["wer"])
    before, after = report.names
    rows = compared(report.wer)
    if not rows:
        return render("note.html.j2", text="No reference words, or no baseline to compare with.")
    mode, _ = max(rows, key=lambda row: row[1].points)
    words = [
        [
            w.word,
            w.spoken,
            w.baseline,
            w.bundle,
            ", ".join(f"{text or '(nothing)'} {count}" for text, count in list(w.became.items())[:4]),
        ]
        for w in mode.words[:_LISTED]
    ]
    utterances = []
    for u in mode.utterances[:_LISTED]:
        texts = (
            ("said", escape(u.reference)),
            (before, _marked(u.reference, u.baseline or "")),
            (after, _marked(u.reference, u.bundle)),
        )
        cell = render("texts.html.j2", texts=texts)
        utterances.append([u.name, cell, f"{u.baseline_errors} → {u.bundle_errors}"])
    return render(
        "damage.html.j2",
        mode=mode.title,
        names=report.names,
        words=Table(["word", "spoken", f"wrong, {before}", f"wrong, {after}", f"{after} wrote"], words, "lrrrw"),
        utterances=Table(["recording", "texts", "errors"], utterances, "wwr"),
    )


def _marked(reference: str, text: str) -> Markup:
    """``text`` with what is too much in ``<ins>`` and what is missing in ``<del>``."""
    said, written = reference.split(), text.split()
    parts: list[Markup] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, said, written, autojunk=False).get_opcodes():
        if kind in ("delete", "replace"):
            parts.append(Markup("<del>{}</del>").format(" ".join(said[a:b])))
        if kind in ("insert", "replace"):
            parts.append(Markup("<ins>{}</ins>").format(" ".join(written[c:d])))
        if kind == "equal":
            parts.append(escape(" ".join(written[c:d])))
    return Markup(" ").join(parts)
