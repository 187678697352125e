"""Reading settings of a ``train.yaml``: sections, choices, ranges, types. Errors name the setting."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from edge.runtime.errors import EdgeError

# Smallest and largest values. The largest are far beyond any model: a damaged or hostile file is refused before
# memory is asked for.
_RANGES: dict[str, tuple[float, float]] = {
    "input_dim": (1, 4096),
    "output_dim": (1, 1 << 20),
    "output_size": (1, 1 << 14),
    "linear_units": (1, 1 << 18),
    "attention_heads": (1, 512),
    "num_blocks": (1, 256),
    "r_num_blocks": (0, 256),
    "n_expert": (1, 256),
    "cnn_module_kernel": (1, 1024),
    "static_chunk_size": (0, 5000),
    "sample_rate": (4000, 384_000),
    "frame_length_ms": (1, 500),
    "frame_shift_ms": (1, 100),
}
_REPR = reprlib.Repr()
_REPR.maxlevel = 2


class ConfigError(EdgeError, ValueError):
    """A train.yaml this project cannot build; the message names the setting and what is supported."""


def section(data: dict[str, Any], name: str, inside: str = "") -> dict[str, Any]:
    """The mapping ``name`` of a parsed train.yaml, empty when it is absent; raises ConfigError for anything else."""
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"train.yaml: {inside}{name}: expected a mapping, found {show(value)}")
    return value


def show(value: Any) -> str:
    """``value`` in a message, however large or nested it is."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python refuses to write integers of more than 4300 digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__


def check_range(name: str, value: Any, where: str) -> None:
    """Raises ConfigError for a number that no model has."""
    least, most = _RANGES.get(name, (-math.inf, math.inf))
    if name.endswith(("dropout_rate", "_weight")):
        least, most = 0, 1
    elif name.endswith("_eps"):
        least, most = 1e-20, 1
    if isinstance(value, (int, float)) and not least <= value <= most:
        raise ConfigError(f"train.yaml: {where}: expected {least} to {most}, found {show(value)}")


def typed(value: Any, default: Any, where: str) -> Any:
    """``value`` as the type of ``default``; an integer may stand for a float, nothing else is converted."""
    if isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif type(value) is type(default):
        return value
    raise ConfigError(f"train.yaml: {where}: expected {type(default).__name__}, found {show(value)}")
