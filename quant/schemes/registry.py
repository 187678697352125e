"""All schemes by name. A new one is a file beside this one and a line here.

Reading this needs no torch; ``scheme`` imports the one that is asked for.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quant.schemes.base import Scheme


@dataclass(frozen=True)
class SchemeInfo:
    """What is known of a scheme before it is imported."""

    where: str  # module:class
    title: str  # in reports
    calibrated: bool = False  # needs activation scales from a calibration profile


SCHEMES = {
    "static": SchemeInfo("quant.schemes.static:Static", "int8", calibrated=True),
    "static16": SchemeInfo("quant.schemes.static16:Static16", "int8 weights, 16-bit activations", calibrated=True),
    "dynamic": SchemeInfo("quant.schemes.dynamic:Dynamic", "int8 dynamic"),
    "weight8": SchemeInfo("quant.schemes.weight8:Weight8", "int8 weights"),
    "weight4": SchemeInfo("quant.schemes.weight4:Weight4", "4-bit experts"),
}
"""In plans, manifests and on the command line -> the scheme."""


@functools.cache
def scheme(name: str) -> Scheme:
    """The scheme called ``name``, one of ``SCHEMES``."""
    module, _, kind = SCHEMES[name].where.partition(":")
    found: Scheme = getattr(importlib.import_module(module), kind)(name)
    return found
