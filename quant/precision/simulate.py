"""Fake quantization inside the torch reference: the rounding of a plan without writing a graph.

For questions asked hundreds of times, such as what one expert costs. It rounds weights and activations as the graphs
do (QuantizeLinear rounds half to even and saturates); sums stay float32, as exact as the int32 sums are for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn

from quant.precision.observer_model import quantizable
from quant.precision.plan import LayerPlan, QuantizationError, QuantizationPlan, covers
from quant.schemes.registry import scheme


@contextlib.contextmanager
def simulated(model: nn.Module, plan: QuantizationPlan, only: Collection[str] | None = None) -> Iterator[None]:
    """Inside, ``model`` computes what the graphs of ``plan`` compute; afterwards it is what it was.

    Args:
        model: the torch reference. Run it with a batch of one where dynamic layers matter: the graphs see one
            utterance at a time, and a dynamic scale is that of a whole call.
        plan: from ``quant.precision.scales``.
        only: module paths; layers that are neither at nor below one of them stay fp32. None: all of the plan.

    Raises:
        QuantizationError: a plan for another model, or a static layer without scales.
    """
    modules = quantizable(model)
    paths = None if only is None else set(only)
    handles: list[Any] = []
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for path, layer in plan.layers.items():
            if _is_float(modules.get(path), layer) or (paths is not None and not covers(paths, path)):
                continue
            if path not in modules:
                raise QuantizationError(f"{path}: expected a plan for this model, which has no such layer")
            module = modules[path]
            weight = module.weight
            assert isinstance(weight, Tensor)
            saved.append((weight, weight.data))
            weight.data = scheme(layer.precision).fake_weight(path, module, layer)
            handles += scheme(layer.precision).hooks(path, module, layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, data in saved:
            weight.data = data


def _is_float(module: nn.Module | None, layer: LayerPlan) -> bool:
    """Whether the graph computes the layer in float32 with the weights as they are."""
    return layer.precision == "fp32" or scheme(layer.precision).is_float(isinstance(module, nn.Conv2d))
