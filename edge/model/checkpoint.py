"""Loads a WeNet experiment directory: train.yaml, final.pt, units.txt, global_cmvn.

Everything is read as data: ``torch.load(weights_only=True)``, safetensors, ``yaml.safe_load``. Each key of
the checkpoint is matched with the key and shape the configuration asks for.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from edge.model.config import ModelConfig
from edge.model.train_yaml import ConfigError, from_wenet, section
from edge.model.u2pp import U2pp
from edge.runtime.bundle import sha256
from edge.runtime.errors import EdgeError
from edge.runtime.tokens import SymbolTable

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
    path = Path(path)
    folder, weights_file = _locate(path)
    raw_config = _read_yaml(folder / "train.yaml")
    config = from_wenet(raw_config)
    units = _find_units(folder, raw_config)
    tokens = SymbolTable.parse(_read_bytes(units), str(units)).symbols
    if len(tokens) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: train.yaml says output_dim {config.vocab_size}, the units file has {len(tokens)} entries; "
            "use the units file this model was trained with"
        )
    state = read_weights(weights_file)
    if config.use_cmvn and not all(k in state for k in _CMVN_KEYS):
        state.update(_read_cmvn(folder, raw_config, config.input_dim))
    if not config.use_cmvn and all(k in state for k in _CMVN_KEYS):
        raise CheckpointError(
            f"{weights_file}: holds global_cmvn, but train.yaml has no 'cmvn: global_cmvn'; "
            "use the train.yaml that WeNet wrote beside this checkpoint"
        )
    return Experiment(folder, config, match_keys(config, state, weights_file), tokens, sha256(weights_file))


def match_keys(config: ModelConfig, state: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """``state`` as float32, checked key for key and shape for shape against the model ``config`` describes."""
    _check_counts(config, state, where)
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in U2pp(config).state_dict().items()}
    wanted = {k for k in expected if not k.endswith(_DISPENSABLE)}
    found = {k for k in state if not k.endswith(_DISPENSABLE)}
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
    for what, pattern, said in (
        ("encoder blocks (encoder_conf.num_blocks)", r"encoder\.encoders\.(\d+)\.", e.num_blocks),
        ("experts (encoder_conf.n_expert)", r"encoder\..+\.experts\.(\d+)\.", e.n_expert if e.mlp_type == "moe" else 0),
        ("decoder blocks (decoder_conf.num_blocks)", r"decoder\.(?:left_decoder\.)?decoders\.(\d+)\.", d.num_blocks),
        ("experts (decoder_conf.n_expert)", r"decoder\..+\.experts\.(\d+)\.", d.n_expert if d.mlp_type == "moe" else 0),
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from ``.pt`` (plain, or wrapped as ``{"model": …}``) or ``.safetensors``."""
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; copy the checkpoint again")
    data: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in ("model", "state_dict", "model_state_dict", "module"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
            break
    found = "" if isinstance(data, dict) else type(data).__name__
    if isinstance(data, dict):
        others = [f"{type(v).__name__} under {k!r}" for k, v in data.items() if not isinstance(v, Tensor)]
        found = others[0] if others else "" if data else "an empty one"
    if found:
        raise CheckpointError(f"{path}: expected a state dict of tensors, plain or under 'model', found {found}")
    state = {str(k): v for k, v in data.items()}
    if all(k.startswith("module.") for k in state):  # saved from DistributedDataParallel
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return state


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {_first_line(error)}") from None


def _read_pickle(path: Path) -> Any:
    """``torch.load`` of plain tensors: code in the file is refused, not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything, from EOFError to OSError and RuntimeError
        raise CheckpointError(
            f"{path}: not a torch checkpoint of plain tensors: {_diagnose(path, str(error))}; "
            "pass the final.pt that WeNet saved"
        ) from None


def _diagnose(path: Path, error: str) -> str:
    """Why ``torch.load`` refused a file. Its own text is long, and advises to load the file unsafely."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.isascii() and head.decode().replace("\n", " ").isprintable():
        return f"it is text ({head.decode()[:40]!r})"
    if code := re.search(r"GLOBAL (\S+)", error):
        return f"it holds code or objects ({code[1].rstrip('.')}), which are not loaded"
    if "TorchScript" in error:
        return "it is a TorchScript archive"
    return "it is damaged or of another format"


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
        if len(total) != dim or len(square) != dim:
            raise ValueError(f"expected {dim} sums and {dim} square sums, found {len(total)} and {len(square)}")
        if not count > 0:
            raise ValueError(f"expected a positive number of frames, found {count}")
        mean = [t / count for t in total]
        variance = [s / count - m * m for s, m in zip(square, mean)]
        if not all(math.isfinite(x) for x in (*mean, *variance)):
            raise ValueError("expected finite sums, found NaN or infinity")
        istd = [1.0 / math.sqrt(max(v, 1e-20)) for v in variance]  # WeNet's floor
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        hint = _first_line(error)
        if "\0" in text[:16]:
            hint = "Kaldi's binary format: write it with compute-cmvn-stats --binary=false"
        raise CheckpointError(f"{path}: not CMVN statistics of WeNet (JSON) or Kaldi (text): {hint}") from None
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(istd, dtype=torch.float32)


def _locate(path: Path) -> tuple[Path, Path]:
    if path.is_file():
        folder, weights = path.parent, path
    elif path.is_dir():
        folder = path
        weights = next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])
    else:
        raise CheckpointError(f"{path}: no such file or directory; expected a WeNet experiment directory")
    if not weights.is_file():
        raise CheckpointError(
            f"{folder}: expected one of {', '.join(WEIGHTS)}, found none; "
            "pass the weights file itself if it has another name"
        )
    if not (folder / "train.yaml").is_file():
        raise CheckpointError(
            f"{folder}: expected train.yaml beside {weights.name}, found none; copy it from the WeNet experiment"
        )
    return folder, weights


def _find_units(folder: Path, config: dict[str, Any]) -> Path:
    named = [section(config, "tokenizer_conf").get("symbol_table_path"), config.get("symbol_table"), config.get("dict")]
    names = [Path(n).name for n in named if isinstance(n, str)] + list(UNITS)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: expected a units file ({', '.join(dict.fromkeys(names))}), found none; "
        "copy the dictionary the model was trained with"
    )


def _read_cmvn(folder: Path, config: dict[str, Any], dim: int) -> dict[str, Tensor]:
    named = section(config, "cmvn_conf").get("cmvn_file") or config.get("cmvn_file")
    names = ([Path(named).name] if isinstance(named, str) else []) + ["global_cmvn"]
    for name in names:
        if (folder / name).is_file():
            return dict(zip(_CMVN_KEYS, read_cmvn(folder / name, dim)))
    raise CheckpointError(
        f"{folder}: expected CMVN statistics in the checkpoint or in {names[0]}, found neither; "
        "copy the file from the WeNet experiment"
    )


def _read_yaml(path: Path) -> Any:
    text = _read_text(path)
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not plain YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Beside YAMLError: what PyYAML lets through of bad dates, numbers and nesting.
        raise ConfigError(f"{path}: not plain YAML: {_first_line(error)}") from None


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: expected a text file below {MAX_TEXT_BYTES >> 20} MiB, found {size >> 20} MiB")
    return path.read_bytes()


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: expected UTF-8 text, found other bytes") from None


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return text if text and not isinstance(error, (KeyError, IndexError)) else f"{type(error).__name__} {text}".strip()
