"""Word error rates while a model is trained: greedy search in chunks of 640 ms, on people it is not trained on."""

from __future__ import annotations

from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch

from edge.model.u2pp import U2pp
from edge.runtime.manifest import FeatureOptions
from recipes.reference.batches import UNITS
from recipes.reference.devset import command_strings, digit_strings
from recipes.reference.store import fbank, read_manifest

Dev = dict[str, list[tuple[np.ndarray, str]]]
"""Name of a set -> (features (frames, mel) float32, text) of its recordings."""


def dev_features(speech: Path) -> Dev:
    """Digit strings of "theo" and of speechocean762's children, a third of its dev sentences; command words, if any."""
    dev: Dev = {"theo": [], "so762": [], "sentences": []}
    heard = FeatureOptions(dither=1.0)  # as the shipped bundle listens
    for u in digit_strings(speech / "digits-human"):
        name = "theo" if u.speaker.startswith("fsdd") else "so762"
        dev[name].append((fbank(u.samples, heard), u.text))
    if (speech / "commands-human").exists():
        strings = command_strings(speech / "commands-human")
        dev["commands"] = [(fbank(u.samples, heard), u.text) for u in strings]
    sentences = speech / "sentences-human"
    rows = [r for r in read_manifest(sentences) if r["split"] == "dev" and r["speaker"].startswith("so762")]
    for row in rows[::3]:  # a third of them follows the course well enough
        samples, _ = soundfile.read(sentences / row["audio"], dtype="float32")
        dev["sentences"].append((fbank(samples, heard), row["text"]))
    return dev


def greedy(model: U2pp, batch: list[np.ndarray], chunk: int, device: torch.device) -> list[str]:
    """CTC greedy texts of feature matrices under a chunk mask."""
    lengths = torch.tensor([len(x) for x in batch])
    feats = torch.zeros(len(batch), int(lengths.max()), batch[0].shape[1])
    for i, x in enumerate(batch):
        feats[i, : len(x)] = torch.from_numpy(x)
    with torch.inference_mode():
        memory, valid = model.encoder(feats.to(device), lengths.to(device), chunk)
        best = model.ctc(memory).argmax(-1).masked_fill(~valid.squeeze(1), 0).cpu()
    texts = []
    for row in best:
        ids = torch.unique_consecutive(row).tolist()
        texts.append(" ".join("".join(UNITS[i] for i in ids if i > 2).replace("▁", " ").split()))
    return texts


def word_error_rates(model: U2pp, dev: Dev, device: torch.device) -> dict[str, float]:
    """Greedy WER in percent of each set, in chunks of 640 ms."""
    result = {}
    for name, items in dev.items():
        texts: list[str] = []
        for start in range(0, len(items), 16):
            texts += greedy(model, [x for x, _ in items[start : start + 16]], 16, device)
        result[name] = 100 * jiwer.wer([t for _, t in items], texts)
    return result
