"""For the tests of quantization: plans from the ranges of one pass through torch, and integer arithmetic by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge.model.checkpoint import load_experiment
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationPlan

Float32 = npt.NDArray[np.float32]


def scale_of(low: float, high: float) -> ActivationScale:
    """uint8 over low..high, extended to 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1e-6
    return ActivationScale(scale, round(-low / scale))


def observed_plan(experiment: Path, features: Float32, precision: Precision = "static") -> QuantizationPlan:
    """Every linear layer and convolution in ``precision``, with the exact ranges of ``features (frames, mel)``.

    An expert that saw nothing gets the widest range of its layer's experts.
    """
    loaded = load_experiment(experiment)
    model = loaded.build()
    inputs: dict[str, tuple[float, float]] = {}
    outputs: dict[str, float] = {}

    def observe(path: str, module: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x = args[0]
            if x.numel():
                low, high = inputs.get(path, (0.0, 0.0))
                inputs[path] = min(low, float(x.min())), max(high, float(x.max()))
                outputs[path] = max(outputs.get(path, 0.0), float(output.max()))

        module.register_forward_hook(hook)

    modules = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        and not path.endswith((".gate", ".depthwise_conv"))
    }  # fmt: skip
    for path, module in modules.items():
        observe(path, module)
    feats = torch.from_numpy(features)[None]
    with torch.inference_mode():
        memory, _ = model.encoder(feats, torch.tensor([len(features)]))
        model.ctc(memory)
        size, sos = loaded.config.vocab_size, loaded.config.sos
        hyps = torch.randint(0, size, (4, 12), generator=torch.Generator().manual_seed(0))
        hyps[:, 0] = sos
        model.forward_attention_decoder(hyps, torch.full((4,), 12), memory)
    layers: dict[str, LayerPlan] = {}
    for path, module in modules.items():
        range_, borrowed = inputs.get(path), path not in inputs
        if range_ is None:
            layer, _, last = path.rpartition(".")
            layer = layer.rpartition(".")[0] + "."
            seen = [r for p, r in inputs.items() if p.startswith(layer) and p.endswith(last)]
            range_ = min(r[0] for r in seen), max(r[1] for r in seen)
        output: Any = scale_of(0.0, outputs[path]) if isinstance(module, nn.Conv2d) else None
        layers[path] = LayerPlan(precision, scale_of(*range_), output, borrowed=borrowed)
    return QuantizationPlan(precision, layers)


# The same arithmetic by hand.


def uint8(x: Float32, scale: ActivationScale) -> npt.NDArray[np.int64]:
    """Of the numbers 0..255, less the zero point."""
    q = np.clip(np.rint(x / np.float32(scale.scale)) + scale.zero_point, 0, 255).astype(np.int64)
    return q - scale.zero_point


def int8(weight: Float32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """One scale per output; a channel of zeros is zeros at any scale."""
    scale = np.abs(weight).max(axis=1).astype(np.float64) / 127
    scale[scale == 0] = 1e-9
    return np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int64), scale


def static(x: Float32, weight: Float32, bias: Float32 | None, scale: ActivationScale) -> npt.NDArray[np.float64]:
    w, w_scale = int8(weight)
    step = scale.scale * w_scale
    integers = uint8(x, scale) @ w.T + (0 if bias is None else np.rint(bias / step).astype(np.int64))
    return np.asarray(integers * step)


def dynamic(x: Float32, weight: Float32, bias: Float32 | None) -> npt.NDArray[np.float64]:
    """DynamicQuantizeLinear's range is that of the whole input, extended to 0."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255
    w, w_scale = int8(weight)
    integers = uint8(x, ActivationScale(scale, round(-low / scale))) @ w.T
    return np.asarray(integers * (scale * w_scale) + (0 if bias is None else bias))


def blocks(weight: Float32, bits: int) -> npt.NDArray[np.float64]:
    """The weight after a round trip through blocks of 32, one number at a time."""
    middle, out = 2 ** (bits - 1), np.zeros(weight.shape)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], 32):
            block = weight[row, start : start + 32]
            scale = float(np.float16(-block[np.abs(block).argmax()] / np.float32(middle)))
            for i, value in enumerate(block):
                out[row, start + i] = min(max(round(float(value) / scale), -middle), middle - 1) * scale
    return out


def rounding_of_blocks(x: Float32, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What int8 activations in blocks of 32 can change: half a step of the block times its weights, per output."""
    bound = np.zeros((len(x), len(weight)))
    for start in range(0, x.shape[1], 32):
        part = slice(start, start + 32)
        half_step = np.abs(x[:, part]).max(axis=1) / 127 / 2
        bound += half_step[:, None] * np.abs(weight[:, part]).sum(axis=1)
    return bound
