"""Loads a WeNet experiment directory: train.yaml, final.pt, units.txt, global_cmvn.

Everything is read as data: ``torch.load(weights_only=True)``, safetensors, ``yaml.safe_load``. Each key of
the checkpoint is matched with the key and shape the configuration asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edge.model.ages import HALVED, kind_of
from edge.model.config import ModelConfig
from edge.model.experiment_files import find_cmvn, find_units, locate, read_yaml
from edge.model.lora import merge_lora
from edge.model.settings import ConfigError
from edge.model.ties import untie
from edge.model.token_settings import check_special_tokens, joining
from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from edge.model.weights_file import CheckpointError, read_weights
from edge.runtime.bundle import sha256

__all__ = ["CheckpointError", "ConfigError", "Experiment", "load_experiment", "match_keys", "opened", "read_weights"]

# Keys that newer or older WeNet versions store and inference does not need: position tables, the counter of
# batch norm, and projections that versions before May 2022 created in every layer but used only with
# ``concat_after: true``, which is refused.
_DISPENSABLE = re.compile(
    r"\.pe$|\.num_batches_tracked$|\.(?:encoders|decoders)\.\d+\.concat_linear[12]?\.(?:weight|bias)$"
)
# Parts of models whose half with CTC and attention is converted (``edge.model.ages``).
_OTHER_HALVES = ("predictor.", "joint.", "simple_am_proj.", "simple_lm_proj.", "criterion_", "lfr.")
_CMVN_KEYS = ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd")


@dataclass(frozen=True)
class Experiment:
    """A WeNet experiment as data. ``weights`` maps WeNet's keys to float32 tensors, complete and checked."""

    path: Path
    config: ModelConfig
    weights: dict[str, Tensor]
    tokens: tuple[str, ...]  # index = id
    sha256: str  # of the weights file
    joining: str = "pieces"  # how tokens become text (edge.runtime.joining)
    notes: tuple[str, ...] = ()  # what a user should know: a file taken by another name, a setting read otherwise

    def parameters(self) -> int:
        """Number of weights, without CMVN and running statistics."""
        skip = ("global_cmvn", "running_mean", "running_var")
        return sum(t.numel() for k, t in self.weights.items() if not any(s in k for s in skip))

    def build(self) -> U2pp:
        """The torch model in eval mode, with these weights."""
        model = U2pp(self.config)
        missing, surplus = model.load_state_dict(self.weights, strict=False)
        left = [k for k in missing if not _DISPENSABLE.search(k)]
        if left or surplus:
            raise CheckpointError(f"internal error: weights and model disagree on {(left + list(surplus))[0]}")
        return model.eval()


def opened(checkpoint: str | Path | Experiment) -> Experiment:
    """``checkpoint``, loaded by :func:`load_experiment` unless it was before: a command reads it once."""
    return checkpoint if isinstance(checkpoint, Experiment) else load_experiment(checkpoint)


def load_experiment(path: str | Path) -> Experiment:
    """Read ``path``: an experiment directory, or the weights file inside one.

    Raises:
        CheckpointError: a file that is missing or not what it should be, a missing or surplus key, a shape.
        ConfigError: a train.yaml that asks for something this project does not build.
        TokenError: a units file that is not ``token id`` per line with ids 0..n-1.
    """
    notes: list[str] = []
    folder, weights_file, config_file = locate(Path(path), notes.append)
    data = read_yaml(config_file)
    if not isinstance(data, dict):
        from_wenet(data)  # raises
    state = read_weights(weights_file)
    config = from_wenet(data, state.keys(), notes.append)
    units, table = find_units(folder, data, config.vocab_size, notes.append)
    tokens = table.symbols
    if len(tokens) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: train.yaml says output_dim {config.vocab_size}, the units file has {len(tokens)} entries; "
            "use the units file this model was trained with"
        )
    state = untie(merge_lora(state, data, weights_file, notes.append), data)
    if config.use_cmvn and not all(k in state for k in _CMVN_KEYS):
        state.update(zip(_CMVN_KEYS, find_cmvn(folder, data, config.input_dim, notes.append)))
    if not config.use_cmvn and all(k in state for k in _CMVN_KEYS):
        raise CheckpointError(
            f"{weights_file}: holds global_cmvn, but train.yaml has no 'cmvn: global_cmvn'; "
            "use the train.yaml that WeNet wrote beside this checkpoint"
        )
    check_special_tokens(config, tokens, units.name, notes.append)
    how = joining(data, tokens, notes.append)
    other = [] if kind_of(data) not in HALVED else [k for k in state if k.startswith(_OTHER_HALVES)]
    if config.decoder is None:
        other += [key for key in state if key.startswith("decoder.")]
    state = {key: value for key, value in state.items() if key not in set(other)}
    weights = match_keys(config, state, weights_file)
    return Experiment(folder, config, weights, tokens, sha256(weights_file), how, tuple(notes))


def match_keys(config: ModelConfig, state: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """``state`` as float32, checked key for key and shape for shape against the model ``config`` describes."""
    _check_counts(config, state, where)
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in U2pp(config).state_dict().items()}
    wanted = {k for k in expected if not _DISPENSABLE.search(k)}
    found = {k for k in state if not _DISPENSABLE.search(k)}
    problems = [f"missing key {k} {expected[k]}" for k in expected if k in wanted - found]
    problems += [f"surplus key {k!r} {tuple(state[k].shape)}" for k in state if k in found - wanted]
    both = [k for k in expected if k in wanted & found]
    problems += [f"key {k}: {problem}" for k in both if (problem := _problem(state[k], expected[k]))]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(f"{where}: {problems[0]}{more}; check that train.yaml belongs to this checkpoint")
    return {k: state[k].detach().to(torch.float32) for k in both}


def _check_counts(config: ModelConfig, state: dict[str, Tensor], where: Path) -> None:
    """Blocks and experts first: the usual sign of another experiment's train.yaml, and no model is built yet."""
    if not any(key.startswith(("encoder.", "decoder.", "ctc.")) for key in state if key not in _CMVN_KEYS):
        raise CheckpointError(
            f"{where}: none of its {len(state)} keys belongs to a WeNet U2++ model "
            f"(first key: {next(iter(state), 'none')!r}); pass the final.pt of the experiment"
        )
    e, d = config.encoder, config.decoder
    decoders, decoder_experts = (d.num_blocks, d.n_expert if d.mlp_type == "moe" else 0) if d else (0, 0)
    for what, pattern, said in (
        ("encoder blocks (encoder_conf.num_blocks)", r"encoder\.encoders\.(\d+)\.", e.num_blocks),
        ("experts (encoder_conf.n_expert)", r"encoder\..+\.experts\.(\d+)\.", e.n_expert if e.mlp_type == "moe" else 0),
        ("decoder blocks (decoder_conf.num_blocks)", r"decoder\.(?:left_decoder\.)?decoders\.(\d+)\.", decoders),
        ("experts (decoder_conf.n_expert)", r"decoder\..+\.experts\.(\d+)\.", decoder_experts),
    ):
        found = len({match[1] for key in state if (match := re.match(pattern, key))})
        if found != said:
            raise CheckpointError(
                f"{where}: train.yaml says {said} {what}, the checkpoint has {found}; "
                "use the train.yaml that WeNet wrote beside this checkpoint"
            )


def _problem(tensor: Tensor, shape: tuple[int, ...]) -> str:
    """What is wrong with the values of one key, or ''. The shape comes first: the rest reads every number."""
    if tuple(tensor.shape) != shape:
        return f"expected shape {shape}, found {tuple(tensor.shape)}"
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"expected floating-point numbers, found {kind} ({tensor.layout}, {tensor.device})"
    if not torch.isfinite(tensor.to(torch.float32)).all():
        return "expected finite numbers, found NaN or infinity"
    return ""
