"""Shared by the runtime tests: WeNet's references, bundles converted from them once, real speech."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from places import SHARED

from edge.runtime import Recognizer, Result, Stream
from edge.runtime.engines.config import EngineConfig

MODELS = ("moe_u2pp", "dense_u2pp", "moe_encoder_only_bn")
_FOLDER = tempfile.TemporaryDirectory(prefix="u2edge-tests-")  # removed at exit


def wenet(name: str) -> Path:
    """Directory of a WeNet reference checkpoint; skips the test when it is absent."""
    path = SHARED / "wenet" / name
    if not path.is_dir():
        pytest.skip(f"{path} is absent: WeNet's reference outputs are not part of the repository")
    return path


def reference(name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """WeNet's outputs: arrays and decoding results."""
    path = wenet(name)
    with np.load(path / "reference.npz") as arrays:
        return dict(arrays), json.loads((path / "reference.json").read_text())


@functools.cache
def bundle_dir(name: str) -> Path:
    """The reference checkpoint ``name`` as a bundle."""
    source = wenet(name)
    convert = pytest.importorskip("edge.export.convert", reason="converting needs the 'convert' extra (torch, onnx)")
    out = Path(_FOLDER.name) / name
    convert.convert(source, out)
    return out


@functools.cache
def recognizer(name: str) -> Recognizer:
    """The bundle ``name``, loaded with one thread."""
    return Recognizer.load(bundle_dir(name), EngineConfig(threads=1))


def speech() -> Path:
    """One real recording, 16 kHz mono FLAC."""
    folder = SHARED / "speech" / "sentences-human"
    files = sorted(folder.glob("so762/**/*.flac")) if folder.is_dir() else []
    if not files:
        pytest.skip(f"{folder} is absent: recordings are not part of the repository")
    return files[0]


def feed(stream: Stream, samples: NDArray[Any], rate: int = 16000, sizes: tuple[int, ...] = (1600,)) -> list[Result]:
    """All results of ``samples`` given in blocks of ``sizes``, in turn, and of ``finish()``."""
    results, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        results += stream.accept(samples[at : at + size], rate)
        at, turn = at + size, turn + 1
    return results + stream.finish()


def audio(seconds: float, seed: int = 0) -> NDArray[np.int16]:
    """Speech-like noise: bursts of random loudness."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 3000, math.ceil(seconds * 10)), 1600)[: round(seconds * 16000)]
    return (rng.normal(0, 1, len(loud)) * loud).clip(-32768, 32767).astype(np.int16)
