"""Files under the names and paths that real folders use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from model_helpers import (
    refusal,
    rewrite,
    state_of,
    units,
)

from edge.model.checkpoint import CheckpointError, load_experiment

# Files


def test_files_under_other_names(pristine: Path, experiment: Path) -> None:
    (experiment / "final.pt").rename(experiment / "avg30.pt")
    (experiment / "train.yaml").rename(experiment / "config.yaml")
    (experiment / "other.yaml").write_text("a: 1\n")
    (experiment / "units.txt").rename(experiment / "train_960_unigram12_units.txt")
    (experiment / "global_cmvn").rename(experiment / "am.cmvn.json")
    state = state_of(pristine)
    torch.save({k: v for k, v in state.items() if "cmvn" not in k}, experiment / "avg30.pt")
    found = load_experiment(experiment)
    for key in state:
        torch.testing.assert_close(found.weights[key], state[key], atol=1e-5, rtol=1e-5)
    for name in ("avg30.pt", "config.yaml", "train_960_unigram12_units.txt", "am.cmvn.json"):
        assert sum(f"{name}: taken as the" in note for note in found.notes) == 1, found.notes
    (experiment / "more.yaml").write_text((experiment / "config.yaml").read_text())
    assert "found 2 others: config.yaml, more.yaml" in refusal(experiment, CheckpointError)


@pytest.mark.parametrize(
    ("named", "place"),
    [
        (r"D:\exp\data\dict\lang_char.txt", "lang_char.txt"),
        (r"data\dict\mine.txt", "mine.txt"),
        (r"data\dict\mine.txt", "data/dict/mine.txt"),
        ("/home/someone/data/dict/units_zh.txt", "units_zh.txt"),
        ("data/dict/units_zh.txt", "data/dict/units_zh.txt"),
    ],
)
def test_paths_of_other_systems(experiment: Path, named: str, place: str) -> None:
    """The file that train.yaml names is taken even when there is another one of a usual name."""
    (experiment / place).parent.mkdir(parents=True, exist_ok=True)
    (experiment / "units.txt").rename(experiment / place)
    (experiment / "words.txt").write_text(units(12).replace("a 4", "z 4"))
    rewrite(experiment, tokenizer_conf={"symbol_table_path": named, "special_tokens": {"<sos>": 2, "<eos>": 2}})
    found = load_experiment(experiment)
    assert found.tokens[4] == "a" and not found.notes


def test_a_path_does_not_lead_out_of_the_experiment(experiment: Path) -> None:
    shutil.copy(experiment / "units.txt", experiment.parent / "outside.txt")
    (experiment / "units.txt").unlink()
    rewrite(experiment, tokenizer_conf={"symbol_table_path": r"..\outside.txt"})
    assert "expected a units file" in refusal(experiment, CheckpointError)
