"""Choosing recordings for the rarest expert."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from calibration_helpers import centre, corpus
from rich.console import Console

from calibration.balance import balance, choose, table
from calibration.collect import CalibrationError, StatisticsCollector
from calibration.corpus import Utterance, read_corpus, spread, write_manifest
from calibration.profile import CalibrationOptions
from edge.model.checkpoint import load_experiment
from edge.runtime.errors import AudioError

OPTIONS = CalibrationOptions(chunks=(4, -1))


def test_rare_expert_is_found() -> None:
    """Two experts of two layers are met in 3 of 100 recordings each, none of which an even spread of 10 meets."""
    rng = np.random.default_rng(0)
    counts = rng.integers(40, 60, (100, 2, 4))
    counts[:, 0, 3] = counts[:, 1, 0] = 0
    counts[[11, 52, 73], 0, 3] = [20, 30, 10]
    counts[[12, 53, 74], 1, 0] = [5, 25, 15]
    even = spread(list(range(100)), 10)
    chosen = choose(counts, 10)
    assert len(set(chosen)) == 10 and chosen == sorted(chosen)
    assert counts[even].sum(0).min() == 0
    assert {11, 52, 73, 12, 53, 74} <= set(chosen)  # every one of them helps an expert that is the rarest
    assert choose(counts, 100) == choose(counts, 1000) == list(range(100))


def test_close_to_the_best_possible_choice() -> None:
    """Against all subsets of a small pool, in which every recording counts, and against an even spread."""
    shares, better = [], 0
    for seed in range(20):
        counts = np.random.default_rng(seed).geometric(0.05, (12, 1, 6)) - 1
        best = max(counts[list(c)].sum(0).min() for c in itertools.combinations(range(12), 5))
        have = counts[choose(counts, 5)].sum(0).min()
        shares.append(have / best)
        better += have > counts[spread(list(range(12)), 5)].sum(0).min()
    assert min(shares) >= 0.6 and np.mean(shares) >= 0.85 and better >= 17


def test_measured_on_a_model(make_experiment: Callable[..., Path], tmp_path: Path) -> None:
    """Counts are those of calibration; what was measured is not measured again; coverage rises."""
    folder = centre(make_experiment(seed=4))
    pool = corpus(tmp_path / "audio", 16, seconds=0.5)
    said: list[str] = []
    choice = balance(folder, pool, 4, tmp_path / "a.routing", OPTIONS, report=said.append)
    assert said == [] and len(choice.utterances) == 4
    observer = StatisticsCollector(load_experiment(folder), OPTIONS)
    for names, have in ((choice.utterances, choice.after), (spread(pool, 4), choice.before)):
        profiles = [observer.collect(u.name, *observer.load(u.audio)) for u in names]
        expected = [sum(p.routing[layer].counts.sum(0) for p in profiles) for layer in choice.layers]
        assert np.array_equal(have, expected)
    assert choice.after.min() > choice.before.min()
    again = balance(folder, pool, 4, tmp_path / "a.routing", OPTIONS, report=said.append)
    assert said == [f"16 of 16 recordings were measured before ({tmp_path / 'a.routing'})"]
    assert again.utterances == choice.utterances and np.array_equal(again.after, choice.after)
    # Other passes are other numbers, and a damaged file is only a lost cache.
    other = balance(folder, pool, 4, tmp_path / "a.routing", CalibrationOptions(chunks=(-1,)), report=said.append)
    assert len(said) == 1 and 2 * other.before.sum() == choice.before.sum()
    (tmp_path / "a.routing").write_bytes(b"PK")
    assert balance(folder, pool, 4, tmp_path / "a.routing", OPTIONS).utterances == choice.utterances
    console = Console(width=100, record=True)
    table(choice, console)
    shown = console.export_text()
    assert "encoder.1.feed_forward_macaron" in shown and str(choice.after.min()) in shown
    write_manifest(choice.utterances, tmp_path / "chosen.jsonl")
    assert [u.audio for u in read_corpus(tmp_path / "chosen.jsonl")] == [u.audio for u in choice.utterances]
    assert all(json.loads(line)["text"] == "a" for line in (tmp_path / "chosen.jsonl").read_text().splitlines())


def test_what_was_measured_before_a_bad_file_is_kept(pristine: Path, tmp_path: Path) -> None:
    pool = corpus(tmp_path / "audio", 6, seconds=0.3)
    pool.insert(3, Utterance("gone.wav", tmp_path / "gone.wav"))
    with pytest.raises(AudioError, match=r"gone\.wav: .*--skip-bad"):
        balance(pristine, pool, 2, tmp_path / "a.routing", OPTIONS)
    said: list[str] = []
    choice = balance(pristine, pool, 6, tmp_path / "a.routing", OPTIONS, skip_bad=True, report=said.append)
    assert said[0].startswith("3 of 7") and [u.name for u in choice.utterances] == [f"{i:03d}.wav" for i in range(6)]


def test_dense_encoder(make_experiment: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_experiment(encoder_conf={"mlp_type": "position_wise_feed_forward"})
    with pytest.raises(CalibrationError, match="found a dense one"):
        balance(folder, corpus(tmp_path / "audio", 2), 1, tmp_path / "a.routing", OPTIONS)
