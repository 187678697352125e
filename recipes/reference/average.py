"""Averages snapshots of a training run into one experiment: often better on speakers training never saw.

python -m recipes.reference.average build/reference build/reference/snapshots/step-004400.pt ...step-005200.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from edge.model.checkpoint import load_experiment, read_weights
from edge.system.files import replacing


def average(paths: list[Path]) -> dict[str, Tensor]:
    """Mean of the snapshots, tensor by tensor; stored as float16 except CMVN, as train.py stores it.

    Raises:
        ValueError: snapshots of different models.
    """
    states = [read_weights(path) for path in paths]
    if any({k: v.shape for k, v in s.items()} != {k: v.shape for k, v in states[0].items()} for s in states):
        raise ValueError("expected snapshots of one model, found different keys or shapes")
    result = {}
    for key in states[0]:
        mean = torch.stack([state[key].float() for state in states]).mean(0)
        result[key] = mean if "cmvn" in key else mean.half()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="folder of train.py; its final.pt is replaced")
    parser.add_argument("snapshots", type=Path, nargs="+")
    args = parser.parse_args()
    with replacing(args.experiment / "final.pt") as temporary:
        torch.save(average(args.snapshots), temporary)
    load_experiment(args.experiment)
    print(f"{args.experiment / 'final.pt'} is the mean of {len(args.snapshots)} snapshots")


if __name__ == "__main__":
    main()
