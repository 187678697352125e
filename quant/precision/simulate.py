"""Fake quantization inside the torch reference: the rounding of a plan without writing a graph.

For questions asked hundreds of times, such as what one expert costs. It rounds weights and activations as the graphs
do (QuantizeLinear rounds half to even and saturates); sums stay float32, as exact as the int32 sums are for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.precision.observer_model import quantizable
from quant.precision.plan import ActivationScale, LayerPlan, QuantizationError, QuantizationPlan, covers
from quant.schemes.weights import BLOCK, block_quantize, channel_quantize


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
            weight.data = fake_weight(path, module, layer)
            handles += _hooks(path, module, layer)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, data in saved:
            weight.data = data


def _is_float(module: nn.Module | None, layer: LayerPlan) -> bool:
    """Whether the graph computes the layer in float32 with the weights as they are."""
    return layer.precision == "fp32" or (layer.precision == "dynamic" and isinstance(module, nn.Conv2d))


def fake_activation(x: Tensor, scale: ActivationScale) -> Tensor:
    """Quantized to uint8 and back; any shape."""
    q = torch.round(x / scale.scale) + scale.zero_point
    return (q.clamp(0, 255) - scale.zero_point) * scale.scale


def dynamic_scale(x: Tensor) -> ActivationScale | None:
    """As ONNX DynamicQuantizeLinear chooses it; None where everything is zero or nothing is there."""
    if not x.numel():
        return None
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if high == low:
        return None
    scale = (high - low) / 255
    return ActivationScale(scale, round(min(max(-low / scale, 0.0), 255.0)))


def fake_weight(path: str, module: nn.Module, layer: LayerPlan) -> Tensor:
    """The weight as the integers of the graph stand for it: int8 per output channel, or 8 or 4 bits per block."""
    weight = cast(Tensor, module.weight).detach().numpy()
    if layer.precision in ("weight8", "weight4") and not isinstance(module, nn.Conv2d):
        rows = weight.reshape(len(weight), -1)
        return torch.from_numpy(block_values(rows, 4 if layer.precision == "weight4" else 8).reshape(weight.shape))
    bias, x_scale = None, None
    if layer.precision == "static" and module.bias is not None and layer.input is not None:
        bias, x_scale = cast(Tensor, module.bias).detach().numpy(), np.float32(layer.input.scale)
    q, scale = channel_quantize(weight, layer.weight_scale, path, bias, x_scale)
    return torch.from_numpy(q * scale.reshape(-1, *(1,) * (weight.ndim - 1)))


def block_values(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """``weight (out, in)`` after ``quant.schemes.weights.block_quantize``."""
    q, scale = block_quantize(weight, bits)
    if bits == 4:
        q = np.stack([q & 15, q >> 4], axis=-1).reshape(*q.shape[:2], BLOCK)
    values = (q.astype(np.float32) - (1 << (bits - 1))) * scale[..., None]
    return np.ascontiguousarray(values.reshape(len(weight), -1)[:, : weight.shape[1]])


def _hooks(path: str, module: nn.Module, layer: LayerPlan) -> list[Any]:
    if layer.precision in ("weight8", "weight4") and not isinstance(module, nn.Conv2d):
        return [module.register_forward_pre_hook(_block_wise)]
    if layer.precision == "dynamic" and not isinstance(module, nn.Conv2d):
        return [module.register_forward_pre_hook(_dynamic)]
    if layer.precision != "static":
        return []
    if layer.input is None or (isinstance(module, nn.Conv2d) and layer.output is None):
        raise QuantizationError(f"{path}: expected activation scales for a static layer, found none")
    hooks: list[Any] = [module.register_forward_pre_hook(_static(layer.input))]
    if layer.output is not None:
        hooks.append(module.register_forward_hook(_static_output(layer.output)))
    return hooks


def _dynamic(module: nn.Module, args: Any) -> Any:
    scale = dynamic_scale(args[0])
    return args if scale is None else (fake_activation(args[0], scale), *args[1:])


def _block_wise(module: nn.Module, args: Any) -> Any:
    """ONNX Runtime's kernel of block-wise weights rounds the activations to int8 per row and block."""
    x = args[0]
    axis = 1 if isinstance(module, nn.Conv1d) else -1  # of the features
    rows = x.movedim(axis, -1)
    blocks = nn.functional.pad(rows, (0, -rows.size(-1) % BLOCK)).unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    values = torch.where(scale > 0, torch.round(blocks / scale) * scale, torch.zeros_like(blocks))
    return (values.flatten(-2)[..., : rows.size(-1)].movedim(-1, axis), *args[1:])


def _static(scale: ActivationScale) -> Any:
    return lambda module, args: (fake_activation(args[0], scale), *args[1:])


def _static_output(scale: ActivationScale) -> Any:
    # The scale is that of the output after its ReLU, whose zero is the zero point: saturating is the ReLU.
    return lambda module, args, y: fake_activation(y, scale)
