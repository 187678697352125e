"""Shared by the tests of the OpenVINO engine: the reference bundle in fp32 and int8, on both engines."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from places import ROOT

from edge.runtime import Bundle, EngineConfig, Recognizer, load_audio
from edge.runtime.engines.base import Backend, initial_state, load_backend
from edge.runtime.features import StreamingFbank
from edge.runtime.state import Step

REFERENCE = ROOT / "models" / "reference-bundle"
SAMPLES = sorted((ROOT / "models" / "reference" / "samples").glob("*.flac"))

Frames = NDArray[np.float32]


def need_openvino() -> None:
    """Skip where the extra is not installed. Imported as the engine does it: without a word to Intel."""
    from edge.runtime.engines.openvino.core import openvino
    from edge.runtime.errors import BackendError

    try:
        openvino()
    except BackendError as error:
        pytest.skip(str(error))


def bundle_dir(scheme: str) -> Path:
    """The reference model as "fp32" or "int8" bundle."""
    return REFERENCE if scheme == "fp32" else ROOT / "models" / "reference-int8"


@functools.cache
def backend(scheme: str, engine: str) -> Backend:
    return load_backend(Bundle.open(bundle_dir(scheme)), EngineConfig(engine, threads=1))


@functools.cache
def recognizer(scheme: str, engine: str) -> Recognizer:
    return Recognizer(Bundle.open(bundle_dir(scheme)), backend(scheme, engine))


def fbank(path: Path) -> Frames:
    """Features (frames, mel) of a recording."""
    samples, rate = load_audio(path)
    assert rate == 16000
    return StreamingFbank(Bundle.open(REFERENCE, verify=False).manifest.features).accept(samples)


def windows(features: Frames, chunk: int = 16) -> list[Frames]:
    """As the recognizer cuts them: full windows of ``chunk`` encoder frames, the last one shorter."""
    size, stride = (chunk - 1) * 4 + 7, chunk * 4
    return [features[at : at + size] for at in range(0, len(features) - 6, stride)]


def steps(engine: Backend, parts: list[Frames], left: int) -> list[Step]:
    """Of every window, each chunk starting from what this engine made of the ones before."""
    state, found = initial_state(Bundle.open(REFERENCE, verify=False).manifest.caches, left), []
    for part in parts:
        found.append(engine.step(part, state))
        state = found[-1].state
    return found
