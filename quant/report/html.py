"""The report as one HTML page: no scripts, no network, every text escaped."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from typing import Any

from quant.report.data import Bar, Verdict, model_order, percent, points, short
from quant.report.layers import agreement_section, coverage_section, sensitivity_section
from quant.report.plots import Markup, escape, gauge
from quant.report.sections import bench_section, damage_section, wer_section
from quant.report.table import join, missing, note, table

_STATE = {True: ("pass", "✓ pass"), False: ("miss", "✗ missed"), None: ("open", "not measured")}


def render(data: dict[str, Any], verdict: Verdict) -> str:
    """The page of ``report.json``'s content."""
    style = importlib.resources.files("quant.report").joinpath("report.css").read_text(encoding="utf-8")
    sections = [
        ("Word error rate", wer_section(data)),
        ("Latency, memory, size", bench_section(data)),
        ("Coverage in calibration", coverage_section(data)),
        ("Routing agreement", agreement_section(data)),
        ("Sensitivity: error when only one part is quantized", sensitivity_section(data)),
        ("What fell back or borrowed, and why", _plan(data)),
        ("Tuning", _tuning(data)),
        ("Most damaged words and utterances", damage_section(data)),
        ("How to reproduce every number", _provenance(data)),
    ]
    body = join(join((Markup(f"<h2>{escape(title)}</h2>"), content)) for title, content in sections)
    name = escape(data["bundle"]["name"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: {escape(verdict.word)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"{_header(data)}\n{_verdict(verdict)}\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(data: dict[str, Any]) -> Markup:
    bundle, baseline, corpus = data["bundle"], data["baseline"], data["corpus"]
    audio = f"{corpus['utterances']} recordings, {corpus['seconds'] / 60:.1f} min" if corpus else "none"
    return Markup(
        f"<header><h1>u2edge report: {escape(bundle['name'])}, {escape(data['names'][1])} "
        f"({escape(bundle['scheme'])}) against {escape(data['names'][0])}</h1>"
        f'<p class="name">{escape(data["model"])}</p>'
        f'<p class="name">bundle {escape(bundle["path"])} ({escape(bundle["sha256"][:12])}), baseline '
        f"{escape(baseline['path'])} ({escape(baseline['sha256'][:12])}), checkpoint "
        f"{escape(bundle['checkpoint_sha256'][:12])}</p>"
        f"<p>audio: {escape(audio)}; made {escape(data['created'])} on {escape(data['machine']['cpu'])}</p></header>"
    )


def _verdict(verdict: Verdict) -> Markup:
    return Markup(
        f'<section class="verdict {verdict.level}"><p class="word">{escape(verdict.word)}</p>'
        f'<p class="why">{escape(verdict.why)}</p><ul class="tiles">{join(map(_tile, verdict.bars))}</ul></section>'
    )


def _tile(bar: Bar) -> Markup:
    kind, state = _STATE[bar.passed]
    picture = Markup("")
    if bar.value is not None:
        low, high = {"drop": (-0.4, 0.8), "agreement": (0.9, 1.0), "size": (0.0, 1.0), "chunk": (0.0, 1.5)}[bar.key]
        picture = gauge(bar.value, bar.limit, high, low, bool(bar.passed))
    return Markup(
        f'<li><div class="what">{escape(bar.title)}</div><div class="number">{escape(bar.text)}</div>{picture}'
        f'<div class="state {kind}">{state} <span class="dim">({escape(bar.limit_text)})</span></div>'
        f'<div class="more">{escape(bar.note)}</div></li>'
    )


def _plan(data: dict[str, Any]) -> Markup:
    calibration = data["calibration"]
    if not calibration:
        text = "The bundle's manifest says nothing about calibration: it was not made by u2edge quantize."
        return missing(text, data["commands"]["quantize"])
    counts, unsaid = calibration.get("layers"), note("The manifest of the bundle does not say.")
    parts: list[Markup] = []
    if isinstance(counts, dict):
        listed = ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda i: -_number(i[1])))
        parts.append(note(f"Layers by precision: {listed}."))
    parts.append(Markup("<h3>Differs from the scheme</h3>"))
    fell_back = calibration.get("fell_back")
    if isinstance(fell_back, dict):
        reasons: dict[tuple[str, str], list[str]] = {}
        for path, layer in fell_back.items():
            reasons.setdefault((str(layer["precision"]), str(layer["why"])), []).append(short(path))
        rows = [[precision, why, len(names), ", ".join(names)] for (precision, why), names in reasons.items()]
        parts.append(table(["now", "why", "layers", ""], rows, "llrw") if rows else note("Nothing."))
    else:
        parts.append(unsaid)
    parts.append(Markup("<h3>Borrowed the statistics of all experts</h3>"))
    borrowed, seen = calibration.get("borrowed"), (calibration.get("coverage") or {}).get("uncovered", {})
    if isinstance(borrowed, list):
        experts = list(dict.fromkeys(str(path).rpartition(".")[0] for path in borrowed))
        grouped: dict[str, list[str]] = {}
        for path in sorted(experts, key=model_order):
            layer, _, expert = path.rpartition(".experts.")
            frames = seen.get(path)
            grouped.setdefault(layer, []).append(expert + ("" if frames is None else f" ({frames} frames)"))
        rows = [[short(layer), ", ".join(names)] for layer, names in grouped.items()]
        parts.append(table(["layer", "experts, and what they saw"], rows, "lw") if rows else note("None."))
    else:
        parts.append(unsaid)
    return join(parts)


def _tuning(data: dict[str, Any]) -> Markup:
    tuning = (data["calibration"] or {}).get("tuning")
    if not isinstance(tuning, dict) or not tuning.get("trials"):
        return missing("The bundle was quantized without tuning.", data["commands"]["tune"])
    options, rows = tuning["options"], []
    for index, trial in enumerate(tuning["trials"]):
        parts = ", ".join(short(path) for path in trial["fell_back"])
        rows.append(
            [
                f"{index + 1}" + (" (chosen)" if index == tuning["chosen"] else ""),
                trial["observer"],
                f"{trial['precision']}: {parts}" if parts else "nothing",
                points(trial["drop"]),
                percent(trial["agreement"]),
                f"{trial['bytes'] / 1e6:.2f}",
                f"{trial['seconds']:.0f}",
                "yes" if trial["accepted"] else "no",
            ]
        )
    head = ["trial", "observer", "left the scheme", "WER drop, points", "routing", "MB", "s", "good enough"]
    text = (
        f"Searched on {tuning['utterances']} recordings for a drop of at most {options['max_drop']:g} points and "
        f"{percent(options['agreement'])} of routing unchanged"
    )
    text += "." if tuning["accepted"] else "; not reached, so the best trial was taken."
    return join((note(text), table(head, rows, "llwrrrrl", [tuning["chosen"]])))


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


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _provenance(data: dict[str, Any]) -> Markup:
    names = {
        "convert": "Baseline",
        "calibrate": "Calibration profile",
        "quantize": "Bundle",
        "wer": "Word error rates",
        "bench": "Latency, memory, size",
        "report": "Routing agreement, sensitivity and this page",
    }
    commands = [
        Markup(f"<h3>{title}</h3><pre>{escape(data['commands'][key])}</pre>")
        for key, title in names.items()
        if data["commands"].get(key)
    ]
    machine = {k: _value(v) for k, v in data["machine"].items()}
    facts = join(
        (
            Markup("<div><h3>Machine</h3>"),
            _pairs(machine.items()),
            Markup("</div><div><h3>Versions</h3>"),
            _pairs(data["versions"].items()),
            Markup("</div>"),
        )
    )
    corpus = data["corpus"]
    heard = Markup("")
    if corpus:
        rows: list[tuple[str, object]] = [
            (f"manifest {p}", f"SHA-256 {s[:16]}") for p, s in corpus["manifests"].items()
        ]
        rows += [("split", corpus["split"] or "all"), ("recordings", corpus["utterances"]), ("words", corpus["words"])]
        rows += [("minutes", f"{corpus['seconds'] / 60:.1f}"), ("speakers", corpus["speakers"])]
        rows += [(f"skipped {name}", why) for name, why in corpus["skipped"].items()]
        heard = join((Markup("<h3>Audio</h3>"), _pairs(rows)))
    return join((*commands, Markup('<div class="two">'), facts, Markup("</div>"), heard))


def _pairs(rows: Iterable[tuple[str, object]]) -> Markup:
    return table(None, [[key.replace("_", " "), value] for key, value in rows], "lw")
