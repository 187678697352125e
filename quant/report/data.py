"""From measurements to what the report says: verdict, coverage, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from calibration.profile import DEFAULT_RULE, CalibrationOptions, CoverageRule, Profile
from edge.runtime.bundle import Bundle
from quant.measure.agreement import Agreement
from quant.measure.bench.machine import bundle_id
from quant.measure.bench.measure import BenchResult
from quant.measure.wer.measure import ModeReport, WerReport
from quant.measure.wer.score import Difference
from quant.report.names import model_order, percent, points, short

MAX_DROP = 0.2  # points of WER
MIN_AGREEMENT = 0.97  # of frames, mean over layers
MAX_SIZE = 0.30  # of fp32
MAX_CHUNK = 0.5  # of the baseline's median chunk time
SMALL = 10_000_000  # parameters; below, a chunk costs mostly the engine's overhead per node


@dataclass(frozen=True)
class Bar:
    """One of the four numbers that decide. ``value`` None: not measured. ``text`` is how the page writes it."""

    key: str  # drop, agreement, size, chunk
    title: str
    value: float | None
    limit: float
    text: str
    limit_text: str
    passed: bool | None
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """``level``: good (ship), warn (a trade, or something is not measured), bad (do not ship)."""

    word: str
    why: str
    level: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk; ``fp32``: of the baseline with all weights stored as float32."""

    bundle: int
    baseline: int
    fp32: int
    ratio: float  # bundle / fp32


@dataclass(frozen=True)
class ExpertCoverage:
    """What one expert saw in calibration; shares are of its layer's frames and of its routing weight."""

    frames: int
    share: float
    weight: float
    covered: bool


@dataclass(frozen=True)
class LayerCoverage:
    """One MoE layer."""

    layer: str
    experts: tuple[ExpertCoverage, ...]


@dataclass(frozen=True)
class CoverageTable:
    """What every expert saw, in the order of the model."""

    rule: CoverageRule
    utterances: int
    skipped: int
    seconds: float
    options: CalibrationOptions
    layers: tuple[LayerCoverage, ...]
    uncovered: tuple[str, ...]


def decide(
    wer: WerReport | None,
    agreement: Agreement | None,
    size: Sizes,
    bench: BenchResult | None,
    parameters: int,
) -> Verdict:
    """Accuracy is a condition, size and speed are what is bought with it."""
    drop, routes = drop_bar(wer), agreement_bar(agreement)
    smaller, faster = size_bar(size), chunk_bar(bench, parameters)
    bars = (drop, routes, smaller, faster)
    failed = [bar for bar in (drop, routes) if bar.passed is False]
    if failed:
        why = "; ".join(f"{bar.title} is {bar.text}, expected {bar.limit_text}" for bar in failed)
        return Verdict(
            "Do not ship",
            f"{why}. Let the tuner raise the precision of what hurts, or calibrate on more audio.",
            "bad",
            bars,
        )
    unknown = [bar.title for bar in bars if bar.passed is None]
    if unknown:
        return Verdict("Not decided", f"Not measured: {', '.join(unknown)}. The commands are below.", "warn", bars)
    name = wer.rate.upper() if wer else "WER"
    accurate = f"{name} {drop.text} in the worst mode, {routes.text} of routing unchanged"
    if agreement is not None and not any(mode.layers for mode in agreement.modes):
        accurate = f"{name} {drop.text} in the worst mode"
    gains = {"smaller": smaller.passed, "faster": faster.passed}
    if all(gains.values()):
        return Verdict(
            "Ship", f"{accurate}; {smaller.text} of the size, {faster.text} of the time per chunk.", "good", bars
        )
    if smaller.passed:
        why = f"{accurate}, and {smaller.text} of the size; but a chunk takes {faster.text} of the baseline's time."
        return Verdict("Ship for size, not for speed", why, "warn", bars)
    if faster.passed:
        why = f"{accurate}, and {faster.text} of the time per chunk; but {smaller.text} of the size."
        return Verdict("Ship for speed, not for size", why, "warn", bars)
    why = f"{accurate}; but {smaller.text} of the size and {faster.text} of the time: nothing is gained."
    return Verdict("Do not ship", why, "bad", bars)


def compared(wer: WerReport | None) -> list[tuple[ModeReport, Interval]]:
    """Modes whose difference could be measured, with it."""
    found = [(mode, measured(mode.difference)) for mode in (wer.modes if wer else ())]
    return [(mode, interval) for mode, interval in found if interval is not None]


@dataclass(frozen=True)
class Interval:
    """A difference in points of WER, and its 95 % interval."""

    points: float
    low: float
    high: float


def measured(difference: Difference | None) -> Interval | None:
    """None where there is no baseline, or no reference word."""
    if difference is None or difference.points is None or difference.low is None or difference.high is None:
        return None
    return Interval(difference.points, difference.low, difference.high)


def drop_bar(wer: WerReport | None) -> Bar:
    """The largest rise of WER over all modes."""
    title, limit_text = f"{wer.rate.upper() if wer else 'WER'} drop, worst mode", f"at most {MAX_DROP:.1f} points"
    rows = compared(wer)
    if not rows:
        return Bar("drop", title, None, MAX_DROP, "–", limit_text, None, "not measured")
    mode, worst = max(rows, key=lambda row: row[1].points)
    note = f"{mode.title}; 95 % interval {points(worst.low)} to {points(worst.high)}"
    passed = worst.points <= MAX_DROP + 1e-9
    above = sum(interval.points > MAX_DROP + 1e-9 for _, interval in rows)
    if passed and worst.high > MAX_DROP:
        note += ", which reaches beyond the limit: more audio would tell"
    elif not passed and worst.low <= MAX_DROP:
        note += ", too wide to be certain: more audio would tell"
    note += f"; {above} of {len(rows)} modes above the limit" if above else ""
    text = f"{points(worst.points)} points"
    return Bar("drop", title, worst.points, MAX_DROP, text, limit_text, passed, note)


def agreement_bar(agreement: Agreement | None) -> Bar:
    """Mean over layers in the worse mode."""
    title, limit_text = "Routing agreement", f"at least {100 * MIN_AGREEMENT:.0f} %"
    if agreement is None:
        return Bar("agreement", title, None, MIN_AGREEMENT, "–", limit_text, None, "not measured")
    if not any(mode.layers for mode in agreement.modes):
        return Bar("agreement", title, 1.0, MIN_AGREEMENT, "100 %", limit_text, True, "no experts: nothing to route")
    worst = min(agreement.modes, key=lambda mode: mode.set_same)
    layer = min(worst.layers, key=lambda layer: layer.set_same)
    note = f"frames with the same experts, mean of layers, {worst.mode}; "
    note += f"lowest {percent(layer.set_same)} in {short(layer.layer)}"
    passed = worst.set_same >= MIN_AGREEMENT
    return Bar("agreement", title, worst.set_same, MIN_AGREEMENT, percent(worst.set_same), limit_text, passed, note)


def size_bar(size: Sizes) -> Bar:
    """On disk, against fp32 storage whatever the baseline's is."""
    value = size.ratio
    note = f"{size.bundle / 1e6:.1f} MB, {size.fp32 / 1e6:.1f} MB as fp32"
    if size.baseline != size.fp32:
        note += f" ({size.baseline / 1e6:.1f} MB on disk, weights stored as fp16)"
    return Bar(
        "size", "Size on disk", value, MAX_SIZE, f"{value:.2f} ×", f"at most {MAX_SIZE:.2f} ×", value <= MAX_SIZE, note
    )


def chunk_bar(bench: BenchResult | None, parameters: int) -> Bar:
    """Median chunk time against the baseline's, in the interleaved run."""
    title, limit_text = "Chunk time, median", f"at most {MAX_CHUNK:.2f} ×"
    ratio = bench.ratios.get("chunk") if bench else None
    if bench is None or bench.baseline is None or ratio is None:
        return Bar("chunk", title, None, MAX_CHUNK, "–", limit_text, None, "not measured")
    note = f"{bench.bundle.chunk.p50:.2f} ms against {bench.baseline.chunk.p50:.2f} ms"
    if ratio.low is not None:
        note += f"; 95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
    passed = ratio.value <= MAX_CHUNK
    if not passed and parameters < SMALL:
        note += f". A model of {parameters / 1e6:.1f} M parameters is too small to gain much"
    return Bar("chunk", title, ratio.value, MAX_CHUNK, f"{ratio.value:.2f} ×", limit_text, passed, note)


def sizes(baseline: Bundle, bundle: Bundle) -> Sizes:
    """Bytes on disk of both, and of the baseline with all weights stored as float32."""
    small, large = bundle_id(bundle).bytes, bundle_id(baseline).bytes
    fp32 = large + sum(2 * _halves(path) for path in baseline.graphs)
    return Sizes(small, large, fp32, small / fp32)


def _halves(graph: Path) -> int:
    """Float16 elements among the weights."""
    model = onnx.load(str(graph), load_external_data=False)
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            elements = 1
            for extent in tensor.dims:
                elements *= extent
            total += elements
    return total


def coverage(profile: Profile, rule: CoverageRule = DEFAULT_RULE) -> CoverageTable:
    """By MoE layer in the order of the model: what each expert saw in calibration."""
    layers: dict[str, list[ExpertCoverage]] = {}
    for entry in profile.coverage(rule):
        expert = ExpertCoverage(entry.frames, entry.share, entry.weight, entry.covered)
        layers.setdefault(entry.layer, []).append(expert)
    header = profile.header
    return CoverageTable(
        rule=rule,
        utterances=len(header.utterances),
        skipped=len(header.skipped),
        seconds=profile.seconds,
        options=header.options,
        layers=tuple(LayerCoverage(name, tuple(layers[name])) for name in sorted(layers, key=model_order)),
        uncovered=tuple(sorted(profile.uncovered(rule), key=model_order)),
    )


def rule_of(calibration: dict[str, Any]) -> CoverageRule:
    """Of coverage, that a bundle was made with."""
    rule = (calibration.get("coverage") or {}).get("rule")
    return CoverageRule(**rule) if isinstance(rule, dict) else DEFAULT_RULE
