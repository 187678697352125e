"""From measurements to what the report says: verdict, coverage, sizes. Plain JSON values in and out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from calibration.profile import DEFAULT_RULE, CoverageRule, Profile
from edge.runtime.bundle import Bundle
from quant.measure.agreement import Agreement
from quant.measure.bench.machine import bundle_id

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


def decide(
    wer: dict[str, Any] | None,
    agreement: Agreement | None,
    size: dict[str, Any],
    bench: dict[str, Any] | None,
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
    accurate = f"WER {drop.text} in the worst mode, {routes.text} of routing unchanged"
    if agreement is not None and not any(mode.layers for mode in agreement.modes):
        accurate = f"WER {drop.text} in the worst mode"
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


def drop_bar(wer: dict[str, Any] | None) -> Bar:
    """The largest rise of WER over all modes."""
    title, limit_text = "WER drop, worst mode", f"at most {MAX_DROP:.1f} points"
    rows = [m for m in wer["modes"] if m["difference"] and m["difference"]["points"] is not None] if wer else []
    if not rows:
        return Bar("drop", title, None, MAX_DROP, "–", limit_text, None, "not measured")
    worst = max(rows, key=lambda mode: mode["difference"]["points"])
    difference = worst["difference"]
    note = f"{worst['title']}; 95 % interval {points(difference['low'])} to {points(difference['high'])}"
    passed = difference["points"] <= MAX_DROP + 1e-9
    above = sum(row["difference"]["points"] > MAX_DROP + 1e-9 for row in rows)
    if passed and difference["high"] > MAX_DROP:
        note += ", which reaches beyond the limit: more audio would tell"
    elif not passed and difference["low"] <= MAX_DROP:
        note += ", too wide to be certain: more audio would tell"
    note += f"; {above} of {len(rows)} modes above the limit" if above else ""
    return Bar(
        "drop",
        title,
        difference["points"],
        MAX_DROP,
        f"{points(difference['points'])} points",
        limit_text,
        passed,
        note,
    )


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


def size_bar(size: dict[str, Any]) -> Bar:
    """On disk, against fp32 storage whatever the baseline's is."""
    value = size["ratio"]
    note = f"{size['bundle'] / 1e6:.1f} MB, {size['fp32'] / 1e6:.1f} MB as fp32"
    if size["baseline"] != size["fp32"]:
        note += f" ({size['baseline'] / 1e6:.1f} MB on disk, weights stored as fp16)"
    return Bar(
        "size", "Size on disk", value, MAX_SIZE, f"{value:.2f} ×", f"at most {MAX_SIZE:.2f} ×", value <= MAX_SIZE, note
    )


def chunk_bar(bench: dict[str, Any] | None, parameters: int) -> Bar:
    """Median chunk time against the baseline's, in the interleaved run."""
    title, limit_text = "Chunk time, median", f"at most {MAX_CHUNK:.2f} ×"
    ratio = bench["ratios"].get("chunk") if bench else None
    if bench is None or ratio is None:
        return Bar("chunk", title, None, MAX_CHUNK, "–", limit_text, None, "not measured")
    value = ratio["value"]
    note = f"{bench['bundle']['chunk']['p50']:.2f} ms against {bench['baseline']['chunk']['p50']:.2f} ms"
    if ratio["low"] is not None:
        note += f"; 95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}"
    passed = value <= MAX_CHUNK
    if not passed and parameters < SMALL:
        note += f". A model of {parameters / 1e6:.1f} M parameters is too small to gain much"
    return Bar("chunk", title, value, MAX_CHUNK, f"{value:.2f} ×", limit_text, passed, note)


def sizes(baseline: Bundle, bundle: Bundle) -> dict[str, Any]:
    """Bytes on disk of both, and of the baseline with all weights stored as float32."""
    small, large = bundle_id(bundle).bytes, bundle_id(baseline).bytes
    fp32 = large + sum(2 * _halves(path) for path in (baseline.encoder, baseline.decoder))
    return {"bundle": small, "baseline": large, "fp32": fp32, "ratio": small / fp32}


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


def coverage(profile: Profile, rule: CoverageRule = DEFAULT_RULE) -> dict[str, Any]:
    """By MoE layer in the order of the model: what each expert saw in calibration."""
    layers: dict[str, list[dict[str, Any]]] = {}
    for entry in profile.coverage(rule):
        layers.setdefault(entry.layer, []).append(
            {"frames": entry.frames, "share": entry.share, "weight": entry.weight, "covered": entry.covered}
        )
    header = profile.header
    return {
        "rule": dataclasses.asdict(rule),
        "utterances": len(header.utterances),
        "skipped": len(header.skipped),
        "seconds": profile.seconds,
        "options": dataclasses.asdict(header.options),
        "layers": [{"layer": name, "experts": layers[name]} for name in sorted(layers, key=model_order)],
        "uncovered": sorted(profile.uncovered(rule), key=model_order),
    }


def rule_of(calibration: dict[str, Any]) -> CoverageRule:
    """Of coverage, that a bundle was made with."""
    rule = (calibration.get("coverage") or {}).get("rule")
    return CoverageRule(**rule) if isinstance(rule, dict) else DEFAULT_RULE


def model_order(path: str) -> tuple[Any, ...]:
    """Sorts module paths as audio passes through them."""
    steps = path.split(".")
    kinds = ("embed", "feed_forward_macaron", "self_attn", "src_attn", "conv_module", "feed_forward", "output_layer")
    room = 0 if path.startswith("encoder") else 1 if path.startswith("ctc") else 2
    side = 1 if "right_decoder" in steps else 0
    place = next(
        (int(step) for i, step in enumerate(steps) if step.isdigit() and steps[i - 1] in ("encoders", "decoders")), -1
    )
    if "output_layer" in steps:
        place = 1 << 30
    kind = next((i for i, name in enumerate(kinds) if name in steps), -1)
    return (room, side, place, kind, [int(step) if step.isdigit() else -1 for step in steps], path)


_NAMES = {
    "feed_forward_macaron": "feed-forward 1",
    "feed_forward": "feed-forward 2",
    "self_attn": "attention",
    "src_attn": "source attention",
    "conv_module": "convolution",
}


def short(path: str) -> str:
    """A module path for people, e.g. "block 3 feed-forward 2, expert 5, w_1"; unknown ones as they are."""
    steps = path.split(".")
    if path.startswith("encoder.embed"):
        return " ".join(["subsampling", *steps[2:]])
    if steps[0] == "ctc":
        return "CTC"
    if steps[-1] == "output_layer":
        return f"{_side(steps)} output"
    number = next((i for i, step in enumerate(steps) if step in ("encoders", "decoders")), None)
    if number is None or len(steps) < number + 2:
        return path
    place = f"block {steps[number + 1]}" if steps[0] == "encoder" else f"{_side(steps)} {steps[number + 1]}"
    rest = steps[number + 2 :]
    if not rest:
        return place
    name = _NAMES.get(rest[0], rest[0])
    if steps[0] == "decoder" and rest[0] == "feed_forward":
        name = "feed-forward"
    if rest[1:2] == ["experts"] and len(rest) > 2:
        name += f", expert {rest[2]}"
        rest = rest[2:]
    return ", ".join([f"{place} {name}", *rest[1:]])


def _side(steps: list[str]) -> str:
    return {"left_decoder": "left decoder", "right_decoder": "right decoder"}.get(steps[1], "decoder")


def points(value: float) -> str:
    """Signed, two digits, with a real minus."""
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"


def percent(value: float) -> str:
    """A share with as many digits as it needs: 100 % is said of all only."""
    text = f"{100 * value:.1f}"
    if text == "100.0" and value < 1.0:
        text = "> 99.9"
    return f"{text} %"
