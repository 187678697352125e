"""Loads a WeNet experiment directory: train.yaml, final.pt, units.txt, global_cmvn.

Everything is read as data: ``torch.load(weights_only=True)``, safetensors, ``yaml.safe_load``. Each key of
the checkpoint is matched with the key and shape the configuration asks for.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from edge.model.config import ConfigError, ModelConfig, from_wenet
from edge.model.u2pp import U2pp
from edge.runtime.errors import EdgeError

WEIGHTS = ("final.pt", "final.safetensors", "model.safetensors", "model.pt")
UNITS = ("units.txt", "tokens.txt", "lang_char.txt", "words.txt", "dict.txt")
MAX_TEXT_BYTES = 64 << 20
# Keys that newer or older WeNet versions store and inference does not need: position tables, the counter of
# batch norm, and a projection that old versions created but used only with ``concat_after: true``.
_DISPENSABLE = (".pe", ".num_batches_tracked", ".concat_linear.weight", ".concat_linear.bias")
_CMVN_KEYS = ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd")


class CheckpointError(EdgeError, ValueError):
    """A checkpoint that cannot be used; the message says what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Experiment:
    """A WeNet experiment as data. ``weights`` maps WeNet's keys to float32 tensors, complete and checked."""

    path: Path
    config: ModelConfig
    weights: dict[str, Tensor]
    tokens: tuple[str, ...]  # index = id
    sha256: str  # of the weights file

    def parameters(self) -> int:
        """Number of weights, without CMVN and running statistics."""
        skip = ("global_cmvn", "running_mean", "running_var")
        return sum(t.numel() for k, t in self.weights.items() if not any(s in k for s in skip))

    def build(self) -> U2pp:
        """The torch model in eval mode, with these weights."""
        model = U2pp(self.config)
        missing, surplus = model.load_state_dict(self.weights, strict=False)
        left = [k for k in missing if not k.endswith(_DISPENSABLE)]
        if left or surplus:
            raise CheckpointError(f"internal error: weights and model disagree on {(left + list(surplus))[0]}")
        return model.eval()


def load_experiment(path: str | Path) -> Experiment:
    """Read ``path``: an experiment directory, or the weights file inside one.

    Raises:
        CheckpointError: a file that is missing or not what it should be, a missing or surplus key, a shape.
        ConfigError: a train.yaml that asks for something this project does not build.
    """
    path = Path(path)
    folder, weights_file = _locate(path)
    config = from_wenet(_read_yaml(folder / "train.yaml"))
    raw_config = _read_yaml(folder / "train.yaml")
    tokens = read_units(_find_units(folder, raw_config))
    if len(tokens) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: train.yaml says output_dim {config.vocab_size}, the units file has {len(tokens)} entries; "
            "use the units file this model was trained with"
        )
    state = read_weights(weights_file)
    if config.use_cmvn and not all(k in state for k in _CMVN_KEYS):
        state.update(_read_cmvn(folder, raw_config, config.input_dim))
    if not config.use_cmvn and all(k in state for k in _CMVN_KEYS):
        raise CheckpointError(f"{weights_file}: holds global_cmvn, but train.yaml has no 'cmvn: global_cmvn'; "
                              "use the train.yaml that WeNet wrote beside this checkpoint")
    return Experiment(folder, config, match_keys(config, state, weights_file), tokens, file_sha256(weights_file))


def match_keys(config: ModelConfig, state: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """``state`` as float32, checked key for key and shape for shape against the model ``config`` describes."""
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in U2pp(config).state_dict().items()}
    wanted = {k for k in expected if not k.endswith(_DISPENSABLE)}
    found = {k for k in state if not k.endswith(_DISPENSABLE)}
    if not wanted & found:
        raise CheckpointError(f"{where}: none of its {len(state)} keys belongs to a WeNet U2++ model "
                              f"(first key: {next(iter(state), 'none')}); pass the final.pt of the experiment")
    problems = [f"missing key {k} {expected[k]}" for k in expected if k in wanted - found]
    problems += [f"surplus key {k} {tuple(state[k].shape)}" for k in state if k in found - wanted]
    problems += [
        f"key {k}: expected shape {expected[k]}, found {tuple(state[k].shape)}"
        for k in expected
        if k in wanted & found and tuple(state[k].shape) != expected[k]
    ]
    problems += [
        f"key {k}: expected finite numbers, found NaN or infinity"
        for k in expected
        if k in wanted & found and not torch.isfinite(state[k]).all()
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(f"{where}: {problems[0]}{more}; check that train.yaml belongs to this checkpoint")
    return {k: state[k].to(torch.float32) for k in expected if k in wanted}


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from ``.pt`` (plain, or wrapped as ``{"model": …}``) or ``.safetensors``."""
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; copy the checkpoint again")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not a safetensors file: {_first_line(error)}") from None
    try:
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            IndexError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a torch checkpoint of plain tensors: {_first_line(error)}; "
                              "pass the final.pt that WeNet saved") from None
    for wrapper in ("model", "state_dict", "model_state_dict", "module"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
            break
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        found = f"a dict with {next((k for k, v in data.items() if not isinstance(v, Tensor)), 'no tensors')!r}" \
            if isinstance(data, dict) else type(data).__name__
        raise CheckpointError(f"{path}: expected a state dict of tensors, plain or under 'model', found {found}")
    state = {str(k): v for k, v in data.items()}
    if all(k.startswith("module.") for k in state):  # saved from DistributedDataParallel
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return state


def read_units(path: Path) -> tuple[str, ...]:
    """Tokens in id order from ``token id`` lines. Raises CheckpointError with the line number."""
    tokens: dict[int, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        parts = line.rstrip("\n").rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdigit():
            raise CheckpointError(f"{path}:{number}: expected 'token id', found {line[:60]!r}")
        index = int(parts[1])
        if index in tokens:
            raise CheckpointError(f"{path}:{number}: id {index} is given twice")
        tokens[index] = parts[0]
    if sorted(tokens) != list(range(len(tokens))) or not tokens:
        raise CheckpointError(f"{path}: expected ids 0..{max(len(tokens) - 1, 0)} without gaps, found {len(tokens)} "
                              f"ids up to {max(tokens, default=-1)}")
    return tuple(tokens[i] for i in range(len(tokens)))


def read_cmvn(path: Path, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (dim,) from WeNet's JSON or Kaldi's text statistics."""
    text = _read_text(path)
    try:
        if text.lstrip().startswith("{"):
            data = json.loads(text)
            total, square, count = data["mean_stat"], data["var_stat"], data["frame_num"]
        else:
            numbers = [float(x) for x in text.replace("[", " ").replace("]", " ").split()]
            total, count = numbers[: len(numbers) // 2 - 1], numbers[len(numbers) // 2 - 1]
            square = numbers[len(numbers) // 2 : -1]
        if len(total) != dim or len(square) != dim or not count > 0:
            raise ValueError(f"expected {dim} sums and {dim} square sums, found {len(total)} and {len(square)}")
        mean = [t / count for t in total]
        istd = [1.0 / math.sqrt(max(s / count - m * m, 1e-20)) for s, m in zip(square, mean)]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        hint = "Kaldi's binary format: write it with compute-cmvn-stats --binary=false" if "\0" in text[:16] else error
        raise CheckpointError(f"{path}: not CMVN statistics of WeNet (JSON) or Kaldi (text): {hint}") from None
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(istd, dtype=torch.float32)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locate(path: Path) -> tuple[Path, Path]:
    if path.is_file():
        folder, weights = path.parent, path
    elif path.is_dir():
        folder = path
        weights = next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])
    else:
        raise CheckpointError(f"{path}: no such file or directory; expected a WeNet experiment directory")
    if not weights.is_file():
        raise CheckpointError(f"{folder}: expected one of {', '.join(WEIGHTS)}, found none; "
                              "pass the weights file itself if it has another name")
    if not (folder / "train.yaml").is_file():
        raise CheckpointError(f"{folder}: expected train.yaml beside {weights.name}, found none; "
                              "copy it from the WeNet experiment")
    return folder, weights


def _find_units(folder: Path, config: dict[str, Any]) -> Path:
    conf = config.get("tokenizer_conf") or {}
    named = [conf.get("symbol_table_path"), config.get("symbol_table"), config.get("dict")]
    names = [Path(n).name for n in named if isinstance(n, str)] + list(UNITS)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: expected a units file ({', '.join(dict.fromkeys(names))}), found none; "
                          "copy the dictionary the model was trained with")


def _read_cmvn(folder: Path, config: dict[str, Any], dim: int) -> dict[str, Tensor]:
    conf = config.get("cmvn_conf") or {}
    named = conf.get("cmvn_file") or config.get("cmvn_file")
    names = ([Path(named).name] if isinstance(named, str) else []) + ["global_cmvn"]
    for name in names:
        if (folder / name).is_file():
            return dict(zip(_CMVN_KEYS, read_cmvn(folder / name, dim)))
    raise CheckpointError(f"{folder}: the checkpoint has no CMVN and {names[0]} is not there; copy it from the experiment")


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not plain YAML: {_first_line(error)}") from None


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: expected a text file below {MAX_TEXT_BYTES >> 20} MiB, found {size >> 20} MiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: expected UTF-8 text, found other bytes") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
