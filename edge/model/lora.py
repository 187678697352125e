"""Merges low-rank adaptation into the weights it adapts: W + alpha / r * B @ A (arXiv 2106.09685, section 4.1).

WeNet keeps A ``(r, in)`` and B ``(out, r)`` beside ``weight (out, in)`` (``wenet/finetune/lora/layers.py`` of v3.1,
``wenet/models/finetune/lora/layers.py`` of main) and adds the product when a model is put into eval mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.model.settings import ConfigError, section, show
from edge.model.weights_file import CheckpointError
from edge.system.console import Say, silent

_A, _B = ".lora_A", ".lora_B"
_DEFAULT_ALPHA = 8  # of v3.1's encoder_conf, which then names another setting of LoRA


def merge_lora(state: dict[str, Tensor], data: dict[str, Any], where: Path, say: Say = silent) -> dict[str, Tensor]:
    """``state`` with every adapted weight merged and the adaptation gone; as it is when there is none.

    Args:
        state: from the checkpoint.
        data: the parsed train.yaml; ``lora_conf`` (main) or ``encoder_conf.lora_*`` (v3.1) hold alpha and rank.
        where: the file, for messages.
        say: called with one line when something was merged, or train.yaml names LoRA and there is none.

    Raises:
        CheckpointError: LoRA weights alone, half of a pair, or shapes that do not fit.
        ConfigError: no alpha, or a rank that is not the one of the weights.
    """
    adapted = sorted({key.rsplit(".", 1)[0] for key in state if key.endswith((_A, _B))})
    rank, alpha, named = _settings(data)
    if not adapted:
        if named and data.get("use_lora"):
            say(f"{where}: train.yaml asks for LoRA and there are no LoRA weights; taken as merged already")
        return state
    if not any(f"{layer}.weight" in state for layer in adapted):
        raise CheckpointError(
            f"{where}: holds the LoRA weights of {len(adapted)} layers and not the model they belong to; save base and "
            "LoRA as one file: torch.save({**base, **lora}, 'final.pt')"
        )
    if alpha is None:
        raise ConfigError(
            f"train.yaml: lora_conf.lora_alpha: expected a number, found none, and {where.name} holds LoRA weights; "
            "add the lora_conf of the training"
        )
    merged = {key: value for key, value in state.items() if not key.endswith((_A, _B))}
    for layer in adapted:
        missing = [key for key in (layer + _A, layer + _B, f"{layer}.weight") if key not in state]
        if missing:
            raise CheckpointError(f"{where}: missing key {missing[0]} of its LoRA; copy the checkpoint again")
        a, b, weight = state[layer + _A], state[layer + _B], state[f"{layer}.weight"]
        if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1], a.shape[0]) != (*weight.shape, b.shape[1]):
            raise CheckpointError(
                f"{where}: key {layer}.lora_A: expected (r, {weight.shape[-1]}) and lora_B ({weight.shape[0]}, r), "
                f"found {tuple(a.shape)} and {tuple(b.shape)}"
            )
        if rank is not None and rank != a.shape[0]:
            raise ConfigError(
                f"train.yaml: lora_rank: expected {a.shape[0]} as {where.name} has, found {show(rank)}; use the "
                "train.yaml that WeNet wrote beside this checkpoint"
            )
        delta = b.to(torch.float64) @ a.to(torch.float64)
        merged[f"{layer}.weight"] = (weight.to(torch.float64) + alpha / a.shape[0] * delta).to(torch.float32)
    say(f"{where}: LoRA of {len(adapted)} layers merged (alpha {alpha:g}, rank {a.shape[0]})")
    return merged


def _settings(data: dict[str, Any]) -> tuple[Any, float | None, bool]:
    """Rank, alpha, and whether train.yaml names LoRA at all."""
    main, encoder = section(data, "lora_conf"), section(data, "encoder_conf")
    named = bool(main) or any(key.startswith("lora_") for key in encoder)
    alpha = main.get("lora_alpha", encoder.get("lora_alpha"))
    if alpha is None and any(key.startswith("lora_") for key in encoder):
        alpha = _DEFAULT_ALPHA
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, (int, float))):
        raise ConfigError(f"train.yaml: lora_alpha: expected a number, found {show(alpha)}")
    return main.get("lora_rank", encoder.get("lora_rank")), alpha, named
