"""Weights as trainers wrap them: an ordinary experiment's, which load to the same numbers or a closed form of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import (
    assert_same_weights,
    notes_of,
    refusal,
    rewrite,
    state_of,
    train_yaml,
    write_experiment,
)
from torch import Tensor

from edge.model.checkpoint import CheckpointError, ConfigError, load_experiment

State = dict[str, Tensor]
D = 16  # encoder_conf.output_size of the tiny experiment


# Weights


def with_concat(state: State) -> State:
    """What versions before May 2022 created in every layer."""
    extra = {}
    for key in list(state):
        layer, _, rest = key.partition(".norm1.weight")
        if rest or ".norm1.weight" not in key or "decoders." not in key:
            continue
        for number in (1, 2):
            extra[f"{layer}.concat_linear{number}.weight"] = torch.randn(D, 2 * D)
            extra[f"{layer}.concat_linear{number}.bias"] = torch.randn(D)
    for block in range(2):
        extra[f"encoder.encoders.{block}.concat_linear.weight"] = torch.randn(D, 2 * D)
        extra[f"encoder.encoders.{block}.concat_linear.bias"] = torch.randn(D)
    assert len(extra) == 12
    return state | extra


WRAPPED: dict[str, Callable[[State], Any]] = {
    "concat_linear of every layer": with_concat,
    "torch.compile": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "compiled encoder": lambda s: {
        k.replace("encoder.", "encoder._orig_mod.", 1) if k.startswith("encoder.") else k: v for k, v in s.items()
    },
    "DataParallel of a compiled model": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()},
        "optimizer_states": [],
        "epoch": 3,
        "pytorch-lightning_version": "2.2",
    },
    "another single key": lambda s: {"net": s, "step": 1000},
    "beside an optimizer": lambda s: {
        "weights": s,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"step": 3},
    },
    "two deep": lambda s: {"checkpoint": {"model": s, "args": None}},
    "average of checkpoints": lambda s: {
        "n_averaged": torch.tensor(30),
        **{f"module.{k}": v for k, v in s.items()},
    },
    "numbers beside the weights": lambda s: {**s, "epoch": 3, "step": torch.tensor([7]), "tag": "final"},
}


@pytest.mark.parametrize("change", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights(pristine: Path, experiment: Path, change: Callable[[State], Any]) -> None:
    torch.save(change(state_of(pristine)), experiment / "final.pt")
    assert_same_weights(experiment, pristine)


def test_two_sets_of_weights_are_not_guessed_between(experiment: Path) -> None:
    state = state_of(experiment)
    torch.save({"generator": state, "teacher": state}, experiment / "final.pt")
    assert "found 2: 'generator', 'teacher'" in refusal(experiment, CheckpointError)


def test_a_projection_that_was_used_is_refused(experiment: Path) -> None:
    torch.save(with_concat(state_of(experiment)), experiment / "final.pt")
    rewrite(experiment, encoder_conf={"concat_after": True})
    assert "encoder_conf.concat_after: True is not supported" in refusal(experiment, ConfigError)
    rewrite(experiment, decoder_conf={"concat_after": True})
    assert "decoder_conf.concat_after: True is not supported" in refusal(experiment, ConfigError)


# LoRA

LORA_FORMS: dict[str, dict[str, Any]] = {
    "main": {"lora_conf": {"lora_modules": ["encoder.encoders"], "lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.1}},
    "v3.1": {"encoder_conf": {"lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.0, "lora_list": ["q", "o"]}},
}


def lora_of(state: State, seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for block in range(2):
        for name in ("linear_q", "linear_out"):
            layer = f"encoder.encoders.{block}.self_attn.{name}"
            found[f"{layer}.lora_A"] = torch.randn(3, D, generator=generator)
            found[f"{layer}.lora_B"] = torch.randn(D, 3, generator=generator)
    return found


@pytest.mark.parametrize("settings", LORA_FORMS.values(), ids=LORA_FORMS)
def test_lora_is_merged(pristine: Path, experiment: Path, settings: dict[str, Any]) -> None:
    """x W' + alpha / r x A' B', as WeNet's layer computes it while it is not merged."""
    base, lora = state_of(pristine), lora_of(state_of(pristine))
    torch.save(base | lora, experiment / "final.pt")
    rewrite(experiment, **settings)
    found = load_experiment(experiment)
    x = torch.randn(5, D)
    for layer in {key.rsplit(".", 1)[0] for key in lora}:
        want = x @ base[f"{layer}.weight"].T + x @ lora[f"{layer}.lora_A"].T @ lora[f"{layer}.lora_B"].T * (6 / 3)
        torch.testing.assert_close(x @ found.weights[f"{layer}.weight"].T, want, atol=1e-5, rtol=1e-5)
        assert not torch.equal(found.weights[f"{layer}.weight"], base[f"{layer}.weight"])
    assert not any("lora" in key for key in found.weights)
    assert "LoRA of 4 layers merged (alpha 6, rank 3)" in notes_of(experiment)


def test_lora_that_cannot_be_merged(pristine: Path, experiment: Path) -> None:
    base, lora = state_of(pristine), lora_of(state_of(pristine))
    torch.save(base | lora, experiment / "final.pt")
    assert "lora_conf.lora_alpha: expected a number, found none" in refusal(experiment, ConfigError)
    rewrite(experiment, lora_conf={"lora_rank": 4, "lora_alpha": 6})
    assert "lora_rank: expected 3 as final.pt has, found 4" in refusal(experiment, ConfigError)
    rewrite(experiment, **LORA_FORMS["main"])
    torch.save(lora, experiment / "final.pt")
    assert "holds the LoRA weights of 4 layers and not the model" in refusal(experiment, CheckpointError)
    lora.popitem()
    torch.save(base | lora, experiment / "final.pt")
    assert "of its LoRA" in refusal(experiment, CheckpointError)


def test_settings_of_lora_without_its_weights(pristine: Path, experiment: Path) -> None:
    for settings in LORA_FORMS.values():
        rewrite(experiment, **settings)
        assert_same_weights(experiment, pristine)
    rewrite(experiment, use_lora=True, **LORA_FORMS["main"])
    assert "taken as merged already" in notes_of(experiment)


# Tied embeddings


@pytest.mark.parametrize("kind", ["bitransformer", "transformer"])
@pytest.mark.parametrize("left_out", ["output_layer.weight", "embed.0.weight"])
def test_tied_embeddings(tmp_path: Path, kind: str, left_out: str) -> None:
    data = train_yaml(decoder=kind, decoder_conf={"tie_word_embedding": True})
    folder = write_experiment(tmp_path / "exp", data)
    state = state_of(folder)
    kept = "embed.0.weight" if left_out == "output_layer.weight" else "output_layer.weight"
    torch.save({k: v for k, v in state.items() if not k.endswith(left_out)}, folder / "final.pt")
    found = load_experiment(folder).weights
    sides = ("decoder.",) if kind == "transformer" else ("decoder.left_decoder.", "decoder.right_decoder.")
    for side in sides:
        assert torch.equal(found[side + left_out], state[side + kept])
        assert torch.equal(found[side + kept], state[side + kept])


def test_an_embedding_that_is_not_tied_is_not_made_up(experiment: Path) -> None:
    state = state_of(experiment)
    torch.save({k: v for k, v in state.items() if not k.endswith("output_layer.weight")}, experiment / "final.pt")
    assert "missing key decoder.left_decoder.output_layer.weight" in refusal(experiment, CheckpointError)
