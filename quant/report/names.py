"""Numbers and module paths as people read them, and the order of the model."""

from __future__ import annotations

from typing import Any


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
