"""A plan, applied: the bundle that ``u2edge quantize`` writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge.export.convert import ConvertOptions, convert
from edge.export.quantization import Quantization
from edge.model.checkpoint import Experiment
from edge.runtime.bundle import Bundle
from edge.system.console import Say, silent
from quant.kernels import assert_integer
from quant.precision.plan import QuantizationPlan
from quant.schemes.planned import PlannedScheme


def quantize_checkpoint(
    checkpoint: Path | Experiment,
    plan: QuantizationPlan,
    out: Path,
    options: ConvertOptions | None = None,
    calibration: dict[str, Any] | None = None,
    report: Say = silent,
) -> Bundle:
    """Convert a WeNet experiment with the layers of ``plan`` quantized.

    What stays float (embeddings, layers that fell back) is stored as float16; routers are not rounded.

    Args:
        checkpoint: experiment directory or weights file, or what was loaded from one.
        plan: precision of every layer.
        out: the new bundle; appears complete or not at all.
        options: default: ConvertOptions(); ``export.storage`` and ``tolerance`` do not apply.
        calibration: where the scales came from, for the manifest; JSON values.
        report: called with one line per step.

    Raises:
        QuantizationError: a layer that cannot be quantized as planned, or does not run as an integer kernel.
        EdgeError: as ``edge.export.convert.convert``.
    """
    quantized = [path for path, layer in plan.layers.items() if layer.precision != "fp32"]
    decoder = any(path.startswith("decoder.") for path in quantized)
    encoder = any(not path.startswith("decoder.") for path in quantized)

    def check(bundle: Bundle) -> None:
        report("checking that static layers run in integers")
        assert_integer(bundle, plan)

    quantization = Quantization(
        name=plan.scheme,
        encoder=PlannedScheme(plan) if encoder else None,
        decoder=PlannedScheme(plan) if decoder else None,
        calibration={"layers": plan.counts(), **(calibration or {})},
        check=check,
    )
    options = options or ConvertOptions()
    options = dataclasses.replace(options, export=dataclasses.replace(options.export, storage="fp16"))
    return convert(checkpoint, out, options, report, quantization)
