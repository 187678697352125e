"""The sections of the report about words, time and memory, each from the part of ``report.json`` it shows."""

from __future__ import annotations

import difflib
from typing import Any

from quant.report.data import MAX_DROP, points
from quant.report.plots import Markup, escape, interval
from quant.report.table import details, join, missing, note, table

_LISTED = 12  # words and recordings shown; the rest is in report.json


def wer_section(data: dict[str, Any]) -> Markup:
    """Mode by mode: both rates, the difference with its interval, and the kinds of error."""
    wer = data["wer"]
    if not wer:
        return missing("Word error rates were not measured.", data["commands"]["wer"])
    reach = max([0.5, *(max(abs(m["difference"][k]) for k in ("low", "high")) for m in _compared(wer))]) * 1.1
    rows = [_wer_row(mode["title"], mode, reach) for mode in wer["modes"]]
    before, after = data["names"]
    head = ["mode", f"{before} %", f"{after} %", "points", "95 % interval", f"dashed: the limit, +{MAX_DROP:.1f}"]
    head += ["sub", "del", "ins", "texts changed", "worse / better"]
    corpus, boot = wer["corpus"], wer["bootstrap"]
    several = [
        _wer_row(f"{mode['title']}: {name}", group, reach)
        for mode in wer["modes"]
        for name, group in mode["groups"].items()
    ]
    parts = [
        note(
            f"{corpus['words']} words in {corpus['utterances']} recordings of {corpus['speakers']} speakers "
            f"({corpus['seconds'] / 60:.1f} min). Difference in points of WER, {after} minus {before}; interval by "
            f"paired bootstrap over recordings ({boot['resamples']} resamples). Substitutions, deletions and "
            f"insertions as {before} → {after}."
        ),
        table(head, rows, "lrrrrlrrrrr"),
    ]
    if len(corpus["groups"]) > 1:
        parts.append(details("By source of the recordings", table(head, several, "lrrrrlrrrrr")))
    return join(parts)


def _compared(wer: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in wer["modes"] if m["difference"] and m["difference"]["points"] is not None]


def _wer_row(title: str, row: dict[str, Any], reach: float) -> list[object]:
    new, old, difference = row["bundle"], row["baseline"], row["difference"]
    rates = [_rate(old), _rate(new)]
    if not difference or difference["points"] is None:
        return [title, *rates, "–", "–", "", *(new[k] for k in ("substitutions", "deletions", "insertions")), "–", "–"]
    low, high, value = difference["low"], difference["high"], difference["points"]
    change = Markup(f'<span class="miss">{points(value)}</span>') if value > MAX_DROP else points(value)
    kinds = [f"{old[k]} → {new[k]}" for k in ("substitutions", "deletions", "insertions")]
    return [
        title,
        *rates,
        change,
        f"{points(low)} to {points(high)}",
        interval(value, low, high, reach, MAX_DROP),
        *kinds,
        difference["changed"],
        f"{difference['worse']} / {difference['better']}",
    ]


def _rate(rate: dict[str, Any] | None) -> str:
    return "–" if rate is None or rate["wer"] is None else f"{rate['wer']:.2f}"


def bench_section(data: dict[str, Any]) -> Markup:
    """Latency and memory beside each other, ratios last."""
    bench, size = data["bench"], data["size"]
    sizes: list[object] = [
        "on disk, MB",
        f"{size['baseline'] / 1e6:.2f}",
        f"{size['bundle'] / 1e6:.2f}",
        f"{size['bundle'] / size['baseline']:.2f}",
        "",
    ]
    of_fp32: list[object] = [
        "on disk against fp32 storage, MB",
        f"{size['fp32'] / 1e6:.2f}",
        f"{size['bundle'] / 1e6:.2f}",
    ]
    rows = [sizes, [*of_fp32, f"{size['ratio']:.2f}", ""]] if size["fp32"] != size["baseline"] else [sizes]
    head = ["", *data["names"], "ratio", "95 % interval"]
    if not bench or not bench["baseline"]:
        return join((missing("Latency and memory were not measured.", data["commands"]["bench"]), _four(head, rows)))
    new, old, ratios = bench["bundle"], bench["baseline"], bench["ratios"]
    timing: list[list[object]] = []
    kinds = (("chunk", "chunk"), ("engine", "of that, the encoder graph"), ("finish", "finalisation"))
    for key, title in kinds:
        for quantile in ("p50", "p95", "p99") if key != "engine" else ("p50",):
            first = quantile == "p50"
            label = f"{title}, median, ms" if first else f"{title}, {quantile}, ms"
            timing.append([label, f"{old[key][quantile]:.2f}", f"{new[key][quantile]:.2f}"])
            timing[-1] += _ratio(ratios.get(key)) if first else [f"{_over(new[key][quantile], old[key][quantile])}", ""]
    timing.append(["real-time factor", f"{old['rtf']:.4f}", f"{new['rtf']:.4f}", *_ratio(ratios.get("rtf"))])
    for key, title in (
        ("first_partial_audio_ms", "first partial, audio needed, ms"),
        ("first_partial_wall_ms", "first partial, computing, ms"),
    ):
        if old[key] is not None and new[key] is not None:
            timing.append([title, f"{old[key]:.1f}", f"{new[key]:.1f}", _over(new[key], old[key]), ""])
    fixed = len(rows)
    if new["process"] and old["process"]:
        for key, title, name in (
            ("load_ms", "load, ms", "load"),
            ("peak_mb", "peak memory of the process, MB", "memory"),
            ("added_mb", "of that, for the bundle, MB", "memory_added"),
        ):
            before, after = (_megabytes(side["process"], key) for side in (old, new))
            if before is not None and after is not None:
                rows.insert(len(rows) - fixed, [title, f"{before:.1f}", f"{after:.1f}", *_ratio(ratios.get(name))])
    about = (
        f"Interleaved run, chunk by chunk, {new['chunks']} chunks of {new['chunk_ms']:g} ms each, {new['threads']} "
        f"thread{'s' if new['threads'] != 1 else ''}, {'noise' if bench['synthetic'] else 'recordings'}. "
        f"Ratios are {head[2]} / {head[1]}: below 1, {head[2]} needs less."
    )
    left, right = _four(head, timing), table(head[:4], [row[:4] for row in rows], "lrrr")
    return join((note(about), Markup('<div class="two">'), left, right, Markup("</div>")))


def _megabytes(process: dict[str, Any], key: str) -> float | None:
    """Of a field of Process, or its property ``added_mb``, which JSON does not have."""
    if key != "added_mb":
        return process[key]
    peak, idle = process["peak_mb"], process["idle_mb"]
    return None if peak is None or idle is None else peak - idle


def _four(head: list[str], rows: list[list[object]]) -> Markup:
    return table(head, rows, "lrrrd")


def _ratio(ratio: dict[str, Any] | None) -> list[object]:
    if ratio is None:
        return ["–", ""]
    return [f"{ratio['value']:.2f}", "" if ratio["low"] is None else f"{ratio['low']:.2f} to {ratio['high']:.2f}"]


def _over(new: float, old: float) -> str:
    return f"{new / old:.2f}" if old else "–"


def damage_section(data: dict[str, Any]) -> Markup:
    """Words and recordings that lost most, in the mode that lost most."""
    wer = data["wer"]
    if not wer:
        return missing("Word error rates were not measured.", data["commands"]["wer"])
    before, after = data["names"]
    compared = _compared(wer)
    if not compared:
        return note("No reference words, or no baseline to compare with.")
    mode = max(compared, key=lambda m: m["difference"]["points"])
    words = [
        [
            w["word"],
            w["spoken"],
            w["baseline"],
            w["bundle"],
            ", ".join(f"{text or '(nothing)'} {count}" for text, count in list(w["became"].items())[:4]),
        ]
        for w in mode["words"][:_LISTED]
    ]
    utterances = []
    for u in mode["utterances"][:_LISTED]:
        text = join(
            Markup(f"<div>{label} {content}</div>")
            for label, content in (
                ('<span class="dim">said</span>', escape(u["reference"])),
                (f'<span class="dim">{escape(before)}</span>', _marked(u["reference"], u["baseline"] or "")),
                (f'<span class="dim">{escape(after)}</span>', _marked(u["reference"], u["bundle"])),
            )
        )
        utterances.append([u["name"], text, f"{u['baseline_errors']} → {u['bundle_errors']}"])
    parts = [note(f"Mode: {mode['title']}, the one that lost most. Only what {after} recognises worse than {before}.")]
    if not words and not utterances:
        return join((*parts, Markup("<p>Nothing: no recording has more word errors than before.</p>")))
    parts.append(table(["word", "spoken", f"wrong, {before}", f"wrong, {after}", f"{after} wrote"], words, "lrrrw"))
    parts.append(table(["recording", "texts", "errors"], utterances, "wwr"))
    return join(parts)


def _marked(reference: str, text: str) -> Markup:
    """``text`` with what is too much in ``<ins>`` and what is missing in ``<del>``."""
    said, written = reference.split(), text.split()
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, said, written, autojunk=False).get_opcodes():
        if kind in ("delete", "replace"):
            parts.append(f"<del>{escape(' '.join(said[a:b]))}</del>")
        if kind in ("insert", "replace"):
            parts.append(f"<ins>{escape(' '.join(written[c:d]))}</ins>")
        if kind == "equal":
            parts.append(escape(" ".join(written[c:d])))
    return Markup(" ".join(parts))
