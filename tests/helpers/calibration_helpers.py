"""Corpora of bursts of noise for the calibration tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from runtime_helpers import audio

from calibration.corpus import Utterance, read_corpus
from edge.model.checkpoint import load_experiment
from edge.runtime.features import StreamingFbank

MOE_DECODER = {"mlp_type": "moe", "n_expert": 4, "n_expert_activated": 2}


def write_corpus(folder: Path, count: int, seconds: float = 0.8) -> Path:
    """A folder of ``count`` recordings with a manifest; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        name = f"{index:03d}.wav"
        soundfile.write(folder / name, audio(seconds + 0.1 * (index % 4), seed=index), 16000)
        lines.append(json.dumps({"audio": name, "text": "a", "split": "train" if index % 5 else "dev"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def centre(folder: Path) -> Path:
    """Give an experiment the mean and deviation of ``audio()``'s features, so that its experts share the frames."""
    experiment = load_experiment(folder)
    features = StreamingFbank(experiment.config.features).accept(audio(20.0, seed=5).astype(np.float32) / 32768)
    state = torch.load(folder / "final.pt", weights_only=True)
    state["encoder.global_cmvn.mean"] = torch.from_numpy(features.mean(0))
    state["encoder.global_cmvn.istd"] = torch.from_numpy(1.0 / features.std(0))
    torch.save(state, folder / "final.pt")
    return folder


def corpus(folder: Path, count: int, seconds: float = 0.8) -> list[Utterance]:
    """As ``write_corpus``, read."""
    return read_corpus(write_corpus(folder, count, seconds))


@contextmanager
def one_thread() -> Iterator[None]:
    """Bits may depend on torch's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
