"""Which precision each layer has, and the search that chose it."""

from __future__ import annotations

from markupsafe import Markup

from quant.report.content import FellBack, Report
from quant.report.names import model_order, percent, points, short
from quant.report.template import Table, render


def plan_section(report: Report) -> Markup:
    """What fell back or borrowed, and why."""
    if not report.calibration_json:
        text = "The bundle's manifest says nothing about calibration: it was not made by u2edge quantize."
        return render("missing.html.j2", text=text, command=report.commands["quantize"])
    found = report.calibration
    counts = sorted((found.layers or {}).items(), key=lambda item: -item[1])
    return render(
        "plan.html.j2",
        listed=None if found.layers is None else ", ".join(f"{number} {name}" for name, number in counts),
        fell_back=None if found.fell_back is None else _fell_back(found.fell_back),
        borrowed=None if found.borrowed is None else _borrowed(report),
    )


def _fell_back(layers: dict[str, FellBack]) -> Table:
    reasons: dict[tuple[str, str], list[str]] = {}
    for path, layer in layers.items():
        reasons.setdefault((layer.precision, layer.why), []).append(short(path))
    rows = [[precision, why, len(names), ", ".join(names)] for (precision, why), names in reasons.items()]
    return Table(["now", "why", "layers", ""], rows, "llrw")


def _borrowed(report: Report) -> Table:
    calibration = report.calibration
    seen = calibration.coverage.uncovered if calibration.coverage else {}
    experts = list(dict.fromkeys(path.rpartition(".")[0] for path in calibration.borrowed or ()))
    grouped: dict[str, list[str]] = {}
    for path in sorted(experts, key=model_order):
        layer, _, expert = path.rpartition(".experts.")
        frames = seen.get(path)
        grouped.setdefault(layer, []).append(expert + ("" if frames is None else f" ({frames} frames)"))
    rows = [[short(layer), ", ".join(names)] for layer, names in grouped.items()]
    return Table(["layer", "experts, and what they saw"], rows, "lw")


def tuning_section(report: Report) -> Markup:
    """Trial by trial."""
    tuning = report.calibration.tuning
    if tuning is None or not tuning.trials:
        text = "The bundle was quantized without tuning."
        return render("missing.html.j2", text=text, command=report.commands["tune"])
    rows = []
    for index, trial in enumerate(tuning.trials):
        parts = ", ".join(short(path) for path in trial.fell_back)
        rows.append(
            [
                f"{index + 1}" + (" (chosen)" if index == tuning.chosen else ""),
                trial.observer,
                f"{trial.precision}: {parts}" if parts else "nothing",
                points(trial.drop),
                percent(trial.agreement),
                f"{trial.bytes / 1e6:.2f}",
                f"{trial.seconds:.0f}",
                "yes" if trial.accepted else "no",
            ]
        )
    head = ["trial", "observer", "left the scheme", "WER drop, points", "routing", "MB", "s", "good enough"]
    return render(
        "tuning.html.j2",
        tuning=tuning,
        agreement=percent(tuning.options.agreement),
        table=Table(head, rows, "llwrrrrl", [tuning.chosen]),
    )
