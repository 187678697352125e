"""The trainer's files: a run goes on where it stopped, another starts from a finished experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from places import ROOT

from edge.model.train_yaml import from_wenet
from recipes.reference.batches import Batch
from recipes.reference.train import Trainer, TrainOptions, write_experiment

CONFIGURATION = yaml.safe_load((ROOT / "recipes/reference/train.yaml").read_text())
CONFIGURATION["encoder_conf"] |= {"num_blocks": 1, "output_size": 16, "linear_units": 16}
CONFIGURATION["decoder_conf"] |= {"linear_units": 16}
CMVN = {"mean_stat": [0.0] * 80, "var_stat": [1.0] * 80, "frame_num": 1}


def trainer(out: Path, seed: int = 1) -> Trainer:
    out.mkdir(exist_ok=True)
    options = TrainOptions(steps=10, easy_steps=0, decoder_step=0, seed=seed)
    made = Trainer(from_wenet(CONFIGURATION), options, out, torch.device("cpu"))
    made.set_cmvn(np.zeros(80, np.float32), np.ones(80, np.float32))
    return made


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(2, 60, 80, generator=generator)
    return Batch(feats, torch.tensor([60, 50]), torch.tensor([[3, 4, 5], [6, 7, -1]]), torch.tensor([3, 2]))


def test_a_resumed_run_computes_what_the_uninterrupted_one_would(tmp_path: Path) -> None:
    first = trainer(tmp_path / "a")
    first.train_step(batch())
    first.save()
    resumed = trainer(tmp_path / "a", seed=2)  # other weights, until they are read
    assert resumed.resume() and resumed.step == 1 and resumed.audio_seconds == first.audio_seconds
    for each in (first, resumed):
        torch.manual_seed(5)
        each.train_step(batch())
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_run_starts_from_the_weights_of_an_experiment(tmp_path: Path) -> None:
    first = trainer(tmp_path / "a")
    first.train_step(batch())
    write_experiment(first, CMVN, CONFIGURATION)
    second = trainer(tmp_path / "b", seed=2)
    second.start_from(tmp_path / "a" / "final.pt")
    for model in (second.model, second.average):
        for name, value in first.average.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-6, msg=name)  # float16
    assert second.step == 0
