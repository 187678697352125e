"""Finds and reads the files of a WeNet experiment under the names that real folders use.

What train.yaml names comes first, then WeNet's usual names; when exactly one other file can be it, that is taken and
said. Nothing is guessed among several.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
import yaml
from torch import Tensor

from edge.model.settings import ConfigError, section
from edge.model.weights_file import CheckpointError, first_line
from edge.runtime.errors import TokenError
from edge.runtime.tokens import SymbolTable
from edge.system.console import Say, silent

CONFIG = "train.yaml"
WEIGHTS = ("final.pt", "final.safetensors", "model.safetensors", "model.pt")
UNITS = ("units.txt", "tokens.txt", "lang_char.txt", "words.txt", "dict.txt")
MAX_TEXT_BYTES = 64 << 20
_WEIGHT_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_FOLDERS = ("data/dict", "data/lang_char", "dict", "lang", "lang_char", "data")  # below the experiment


def locate(path: Path, say: Say = silent) -> tuple[Path, Path, Path]:
    """The experiment's folder, its weights file and its train.yaml.

    Args:
        path: the folder, or the weights file inside it.
        say: called with a line when a file has another name than WeNet's.

    Raises:
        CheckpointError: one of them is missing, or several could be meant; the message lists them.
    """
    if path.is_file():
        folder, weights = path.parent, path
    elif path.is_dir():
        folder = path
        known = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        weights = known or _only(
            [p for p in _files(path) if p.suffix in _WEIGHT_ENDINGS],
            "weights",
            f"{folder}: expected one of {', '.join(WEIGHTS)}",
            "pass the weights file itself",
            say,
        )
    else:
        raise CheckpointError(f"{path}: no such file or directory; expected a WeNet experiment directory")
    config = folder / CONFIG
    if not config.is_file():
        config = _only(
            [p for p in _files(folder) if p.suffix in (".yaml", ".yml") and _looks_like_wenet(p)],
            "configuration",
            f"{folder}: expected {CONFIG} beside {weights.name}",
            "copy it from the WeNet experiment",
            say,
        )
    return folder, weights, config


def find_units(folder: Path, config: dict[str, Any], size: int, say: Say = silent) -> tuple[Path, SymbolTable]:
    """The dictionary of ``size`` tokens that the model was trained with.

    Raises:
        CheckpointError: none, or several that could be meant.
        TokenError: the file that is meant is not ``token id`` per line with ids 0..n-1.
    """
    named = [section(config, "tokenizer_conf").get("symbol_table_path"), config.get("symbol_table"), config.get("dict")]
    named.append(section(config, "dataset_conf").get("symbol_table"))
    names = [n for n in named if isinstance(n, str) and n]
    for place in _places(folder, names, UNITS):
        if place.is_file():
            return place, SymbolTable.parse(read_bytes(place), str(place))
    found: list[tuple[Path, SymbolTable]] = []
    for path in [p for d in ("", *_FOLDERS) for p in _files(folder / d) if p.suffix in (".txt", ".dict", "")]:
        if path.stat().st_size <= MAX_TEXT_BYTES and (table := _table(path)) is not None and len(table) == size:
            found.append((path, table))
    expected = ", ".join(dict.fromkeys([*(_base(n) for n in names), *UNITS]))
    chosen = _only(
        [path for path, _ in found],
        "dictionary",
        f"{folder}: expected a units file ({expected})",
        "copy the dictionary the model was trained with",
        say,
    )
    return next(pair for pair in found if pair[0] == chosen)


def find_cmvn(folder: Path, config: dict[str, Any], dim: int, say: Say = silent) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation, (dim,) each, from the file that train.yaml names.

    Raises:
        CheckpointError: no such file, several that could be meant, or other statistics.
    """
    named = section(config, "cmvn_conf").get("cmvn_file") or config.get("cmvn_file")
    names = [named] if isinstance(named, str) and named else []
    for place in _places(folder, names, ("global_cmvn",)):
        if place.is_file():
            return read_cmvn(place, dim)
    chosen = _only(
        [p for p in _files(folder) if "cmvn" in p.name.lower()],
        "CMVN statistics",
        f"{folder}: expected CMVN statistics in the checkpoint or in {_base(names[0]) if names else 'global_cmvn'}",
        "copy the file from the WeNet experiment",
        say,
    )
    return read_cmvn(chosen, dim)


def read_cmvn(path: Path, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (dim,) from WeNet's JSON or Kaldi's text statistics."""
    text = read_text(path)
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
        hint = first_line(error)
        if "\0" in text[:16]:
            hint = "Kaldi's binary format: write it with compute-cmvn-stats --binary=false"
        raise CheckpointError(f"{path}: not CMVN statistics of WeNet (JSON) or Kaldi (text): {hint}") from None
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(istd, dtype=torch.float32)


class _Loader(yaml.SafeLoader):
    """Plain data. A tag that needs Python to build (``!!python/tuple`` in ``optim_conf``) becomes the data under it:
    nothing is imported or called, and settings that are read are checked for their type as always."""


def _plain(loader: Any, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return Tagged(f"{node.tag} {node.value}".strip())


class Tagged(str):
    """A scalar under a tag, as text: a name, not a value."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
_Loader.add_multi_constructor("!", _plain)


def read_yaml(path: Path) -> Any:
    """``path`` as plain data.

    Raises:
        ConfigError: not YAML; the message has the line.
    """
    text = read_text(path)
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not plain YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Beside YAMLError: what PyYAML lets through of bad dates, numbers and nesting.
        raise ConfigError(f"{path}: not plain YAML: {first_line(error)}") from None


def read_bytes(path: Path) -> bytes:
    """All of a small file; raises CheckpointError for a large one."""
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: expected a text file below {MAX_TEXT_BYTES >> 20} MiB, found {size >> 20} MiB")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """All of a small UTF-8 file; raises CheckpointError for another."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: expected UTF-8 text, found other bytes") from None


def _places(folder: Path, named: Sequence[str], usual: Sequence[str]) -> Iterable[Path]:
    """Where a file may lie: beside the weights by base name, below them as train.yaml has it, then usual names."""
    for name in named:
        yield folder / _base(name)
    for name in named:
        relative = PureWindowsPath(name)
        if not relative.anchor and ".." not in relative.parts:
            yield folder.joinpath(*relative.parts)
    for name in usual:
        yield folder / name
    for inner in _FOLDERS:
        for name in (*map(_base, named), *usual):
            yield folder / inner / name


def _base(name: str) -> str:
    """The last part of a path that any system wrote: ``D:\\data\\dict\\lang_char.txt`` too."""
    return PureWindowsPath(name).name


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _only(found: Sequence[Path], what: str, expected: str, hint: str, say: Callable[[str], None]) -> Path:
    """The one of ``found``, said aloud; raises CheckpointError when there is none or more than one."""
    if len(found) == 1:
        say(f"{found[0]}: taken as the {what}, the only file that can be it")
        return found[0]
    if not found:
        raise CheckpointError(f"{expected}, found none; {hint}")
    names = ", ".join(p.name for p in found[:6]) + (", ..." if len(found) > 6 else "")
    raise CheckpointError(f"{expected}, found {len(found)} others: {names}; {hint}")


def _looks_like_wenet(path: Path) -> bool:
    try:
        data = read_yaml(path)
    except (CheckpointError, ConfigError):
        return False
    return isinstance(data, dict) and "encoder_conf" in data


def _table(path: Path) -> SymbolTable | None:
    try:
        return SymbolTable.parse(path.read_bytes(), str(path))
    except TokenError:
        return None
