"""Cuts spoken digit strings into digits, so that training can join the digits of many speakers in new orders.

A trained model finds the tokens by CTC forced alignment (Graves et al. 2006, Viterbi over the label
sequence with blanks); two words are cut apart at the quietest frame between their tokens:

    python -m recipes.reference.align build/reference --features build/reference/features
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from edge.model.checkpoint import load_experiment
from edge.system.files import write_json
from recipes.reference.batches import tokenize
from recipes.reference.store import Clip, FeatureStore, open_store

MARGIN = 6  # feature frames kept before the first and after the last token of a string
SPACE = tokenize(" ")[0]


def align(log_probs: NDArray[np.float32], tokens: list[int], blank: int = 0) -> list[int]:
    """Frame of each token on the best path through ``log_probs`` (frames, vocab).

    Raises:
        ValueError: fewer frames than the tokens need.
    """
    labels = [blank]
    for token in tokens:
        labels += [token, blank]
    frames, states = len(log_probs), len(labels)
    skip = np.array([i > 1 and labels[i] != blank and labels[i] != labels[i - 2] for i in range(states)])
    score = np.full((frames, states), -np.inf)
    move = np.zeros((frames, states), dtype=np.int64)
    score[0, :2] = log_probs[0, labels[:2]]
    for t in range(1, frames):
        before = score[t - 1]
        choices = np.stack(
            [
                before,
                np.concatenate([[-np.inf], before[:-1]]),
                np.where(skip, np.concatenate([[-np.inf, -np.inf], before[:-2]]), -np.inf),
            ]
        )
        move[t] = choices.argmax(0)
        score[t] = choices.max(0) + log_probs[t, labels]
    state = states - 1 if score[-1, -1] >= score[-1, -2] else states - 2
    if not np.isfinite(score[-1, state]):
        raise ValueError(f"expected at least {len(tokens)} frames, found {frames}")
    best: dict[int, tuple[float, int]] = {}
    for t in range(frames - 1, -1, -1):
        if labels[state] != blank:
            value = float(log_probs[t, labels[state]])
            best[state] = max(best.get(state, (-np.inf, t)), (value, t))
        state -= int(move[t, state])
    return [best[s][1] for s in sorted(best)]


def cut(clip: Clip, features: NDArray[np.float32], frames: list[int], tokens: list[int], rate: int) -> list[Clip]:
    """One Clip per word of ``clip``; ``frames`` are encoder frames of ``tokens``."""
    loud = features.max(1)
    groups: list[list[int]] = [[]]
    for frame, token in zip(frames, tokens):
        if token == SPACE:
            groups.append([])
        else:
            groups[-1].append(frame * rate)
    edges = [max(0, groups[0][0] - 4 * MARGIN)]
    for left, right in zip(groups, groups[1:]):
        low, high = left[-1], max(right[0], left[-1] + 1)
        edges.append(low + int(loud[low : high + 1].argmin()))
    edges.append(min(len(features), groups[-1][-1] + 4 * MARGIN))
    words = clip.text.split()
    return [
        Clip(clip.audio, word, clip.speaker, clip.split, clip.corpus, clip.start + start, end - start)
        for word, start, end in zip(words, edges, edges[1:])
        if 15 <= end - start <= 120  # longer ones hold a pause or a hesitation
    ]


def align_digits(experiment: Path, store: FeatureStore) -> list[Clip]:
    """Digits of all human digit strings of ``store``."""
    loaded = load_experiment(experiment)
    model, rate = loaded.build(), loaded.config.encoder.subsampling
    digits: list[Clip] = []
    strings = [c for c in store.clips if c.corpus == "digits-human" and " " in c.text]
    for clip in track(strings, "aligning"):
        features = store.of(clip)
        with torch.inference_mode():
            memory, _ = model.encoder(torch.from_numpy(features)[None], torch.tensor([len(features)]))
            log_probs = model.ctc(memory)[0].numpy()
        tokens = tokenize(clip.text)
        digits += cut(clip, features, align(log_probs, tokens), tokens, rate)
    return digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="experiment folder of train.py; digits.json is written there")
    parser.add_argument("--features", type=Path, required=True, help="feature cache of train.py")
    args = parser.parse_args()
    digits = align_digits(args.experiment, open_store(args.features / "speech", "train"))
    path = args.experiment / "digits.json"
    write_json(path, [asdict(c) for c in digits], indent=None)
    print(
        f"{len(digits)} digits of {len({c.speaker for c in digits})} speakers in {path}; "
        "start train.py again to use them"
    )


if __name__ == "__main__":
    main()
