"""The comparison of arXiv 2404.16407 at small scale, and the noise of the model card."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from places import ROOT

from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from recipes.reference.augment import AugmentOptions
from recipes.reference.batches import Mixer, MixOptions
from recipes.reference.noisy import active_power, mix
from recipes.reference.prefetch import prefetch_in_processes
from recipes.reference.store import Clip, FeatureStore
from recipes.scaling.models import NAMES, configuration

BASE = yaml.safe_load((ROOT / "recipes/reference/train.yaml").read_text())


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in U2pp(from_wenet(configuration(BASE, name))).parameters())


def test_dense_l_has_the_parameters_of_the_mixture_and_dense_s_one_expert() -> None:
    small, mixture, large = (parameters(name) for name in NAMES)
    dim, hidden = BASE["encoder_conf"]["output_size"], BASE["encoder_conf"]["linear_units"]
    layers = 2 * BASE["encoder_conf"]["num_blocks"] + BASE["decoder_conf"]["num_blocks"]
    layers += BASE["decoder_conf"]["r_num_blocks"]
    experts = BASE["encoder_conf"]["n_expert"]
    expert = 2 * dim * hidden + hidden + dim  # two matrices and their biases
    assert mixture - small == layers * ((experts - 1) * expert + experts * dim)  # the last term is the routers
    # A dense layer as wide as all experts has one output bias where they have eight.
    assert mixture - large == layers * (experts * dim + (experts - 1) * dim)
    assert abs(mixture / large - 1) < 0.005


def test_the_mixture_is_unchanged_and_others_are_refused() -> None:
    assert configuration(BASE, "moe") == BASE
    with pytest.raises(ValueError, match="dense-s, moe, dense-l"):
        configuration(BASE, "huge")
    with pytest.raises(ValueError, match="expected moe"):
        configuration(configuration(BASE, "dense-s"), "dense-l")


@pytest.mark.parametrize("snr", [20.0, 5.0])
def test_noise_is_mixed_at_the_asked_ratio(snr: float) -> None:
    """Silence around the speech does not make the noise weaker."""
    rng = np.random.default_rng(0)
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    speech = np.concatenate([np.zeros(16000), tone, np.zeros(8000)])
    mixed = mix(speech, rng.normal(0, 0.3, 7000), snr)
    noise = mixed - speech
    assert active_power(speech) == pytest.approx(0.005, rel=1e-6)
    assert 10 * np.log10(0.005 / (noise**2).mean()) == pytest.approx(snr, abs=0.01)


def test_loud_mixtures_do_not_clip() -> None:
    mixed = mix(np.full(1600, 0.9), np.full(100, 0.5), 0.0)
    assert np.abs(mixed).max() == pytest.approx(1.0)


def test_processes_draw_different_batches_of_any_human_corpus() -> None:
    """Folders are told apart by the beginning of their names; each worker has random numbers of its own."""
    rng = np.random.default_rng(0)
    kinds = [("digits-extra", "seven"), ("sentences-extra", "a cat sat"), ("keywords-extra", "stop")]
    clips = [Clip(f"{i}.flac", text, "s", "train", corpus, 90 * i, 90) for i, (corpus, text) in enumerate(kinds)]
    store = FeatureStore(tuple(clips), rng.normal(12, 3, (270, 80)).astype(np.float16))
    empty = FeatureStore((), np.zeros((0, 80), np.float16))
    mixer = Mixer(store, empty, MixOptions(batch_frames=1500, pool=1), AugmentOptions(), seed=0)
    assert set(mixer.names) == {"joined_digits", "human_sentences", "keywords"}
    batches = prefetch_in_processes(mixer, workers=2)
    drawn = [next(batches) for _ in range(6)]
    assert len({float(b.feats.sum()) for b in drawn}) == 6
