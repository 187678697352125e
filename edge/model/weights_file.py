"""Reads a file of weights, as data only: ``.pt`` and ``.safetensors``, plain or wrapped as trainers wrap them.

Nothing here knows what a model looks like; ``edge.model.match`` compares keys and shapes.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.runtime.errors import EdgeError

WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
"""Keys under which trainers keep the weights; any other single one is found by what it holds."""

_PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel and averaging, of Lightning, of torch.compile
_BOOKKEEPING = (bool, int, float, str, bytes, type(None))
_MAX_DEPTH = 4


class CheckpointError(EdgeError, ValueError):
    """A checkpoint that cannot be used; the message says what was expected, what was found and what to do."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from ``.pt`` or ``.safetensors``.

    Unwrapped are: the key a trainer keeps the weights under (``model``, ``state_dict``, or any other one that holds
    tensors), the prefix of each key (``module.``, ``_orig_mod.``, ``model.``), and numbers beside the weights (step,
    epoch, how many checkpoints were averaged).

    Raises:
        CheckpointError: empty, damaged, with code in it, or without one clear set of weights.
    """
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; copy the checkpoint again")
    data: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _without_prefixes(_unwrapped(data, path))


def _unwrapped(data: Any, path: Path, depth: int = 0) -> dict[str, Tensor]:
    expected = "expected a state dict of tensors, plain or under 'model'"
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: {expected}, found {type(data).__name__}")
    if not data:
        raise CheckpointError(f"{path}: {expected}, found an empty one")
    for wrapper in WRAPPERS:
        if isinstance(data.get(wrapper), dict) and depth < _MAX_DEPTH:
            return _unwrapped(data[wrapper], path, depth + 1)
    holders = [key for key, value in data.items() if _holds_weights(value)]
    if len(holders) == 1 and depth < _MAX_DEPTH and not any(_is_weight(key, v) for key, v in data.items()):
        return _unwrapped(data[holders[0]], path, depth + 1)
    if len(holders) > 1:
        named = ", ".join(repr(str(key)) for key in holders[:5])
        raise CheckpointError(
            f"{path}: expected one set of weights, found {len(holders)}: {named}; save the one you want alone: "
            "torch.save(torch.load(FILE)[KEY], 'final.pt')"
        )
    tensors = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    others = [(key, v) for key, v in data.items() if not isinstance(v, (Tensor, *_BOOKKEEPING))]
    if others or not tensors:
        key, value = (others or list(data.items()))[0]
        raise CheckpointError(f"{path}: {expected}, found {type(value).__name__} under {key!r}")
    weights = {key: value for key, value in tensors.items() if _is_weight(key, value)}
    return weights or tensors


def _holds_weights(value: Any) -> bool:
    """Whether tensors are in it under dotted names, as weights are; the state of an optimizer is keyed by number."""
    if not isinstance(value, dict) or not value:
        return False
    if any(isinstance(v, Tensor) and isinstance(key, str) and "." in key for key, v in value.items()):
        return True
    return any(isinstance(value.get(wrapper), dict) and _holds_weights(value[wrapper]) for wrapper in WRAPPERS)


def _is_weight(key: Any, value: Any) -> bool:
    """A tensor of a module. A number without a dot in its name is bookkeeping (``n_averaged``, ``step``)."""
    return isinstance(value, Tensor) and ("." in str(key) or value.numel() > 1)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys as WeNet's: a wrapper's name before each, or ``_orig_mod`` of a compiled part inside, taken away."""
    while state:
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                break
        else:
            break
    return {re.sub(r"(^|(?<=\.))_orig_mod\.", "", key): value for key, value in state.items()}


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {first_line(error)}") from None


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


def first_line(error: BaseException) -> str:
    """An error in one line, with its kind where its text says little."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return text if text and not isinstance(error, (KeyError, IndexError)) else f"{type(error).__name__} {text}".strip()
