"""The training recipe: augmentation against closed forms, alignment against all paths, batches that CTC can learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from places import ROOT, SHARED

from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from recipes.reference.align import align, cut
from recipes.reference.augment import (
    CENTRES,
    AugmentOptions,
    add_noise,
    augment,
    change_rate,
    no_speech,
    reverberate,
    warp_frequency,
)
from recipes.reference.average import average
from recipes.reference.batches import UNITS, Mixer, MixOptions, collate, tighten, tokenize
from recipes.reference.devset import digit_strings
from recipes.reference.store import Clip, FeatureStore
from recipes.reference.train import TrainOptions, learning_rate

CONFIGURATION = ROOT / "recipes" / "reference" / "train.yaml"


def random_features(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(12, 3, (frames, 80)).astype(np.float32)


def test_change_rate_resamples_a_ramp_exactly() -> None:
    ramp = np.repeat(np.arange(101, dtype=np.float32)[:, None], 80, axis=1)
    for factor in (0.5, 0.8, 1.0, 1.3):
        out = change_rate(ramp, factor)
        assert len(out) == round(101 / factor)
        # Linear interpolation of a straight line is the line; both ends stay.
        np.testing.assert_allclose(out[:, 0], np.linspace(0, 100, len(out)), atol=1e-4)


@pytest.mark.parametrize("alpha", [0.8, 1.0, 1.25])
def test_warp_moves_a_peak_by_the_factor(alpha: float) -> None:
    x = np.zeros((4, 80), np.float32)
    peak = 40
    x[:, peak - 1 : peak + 2] = [1.0, 3.0, 1.0]
    moved = warp_frequency(x, alpha)[0]
    found = CENTRES[int(moved.argmax())]
    width = CENTRES[peak + 1] - CENTRES[peak]  # a mel bin; the peak can only be found on the grid
    assert abs(found - alpha * CENTRES[peak]) <= 1.5 * width * max(1.0, alpha)


def test_noise_lands_at_the_requested_distance() -> None:
    speech = np.full((200, 80), 15.0, np.float32)
    noise = np.full((200, 80), 3.0, np.float32)
    mixed = add_noise(speech, noise, snr=10.0)
    # Powers add: 10 dB below the speech is a tenth of its power.
    np.testing.assert_allclose(np.exp(mixed - speech), 1.1, rtol=1e-3)


def test_reverberation_decays_by_60_db_in_t60() -> None:
    impulse = np.full((120, 80), -15.0, np.float32)
    impulse[5] = 20.0
    tail = reverberate(impulse, t60=0.5, level=0.0)
    slope = (tail[20, 0] - tail[60, 0]) * 4.343 / (40 * 0.01)  # dB per second
    assert slope == pytest.approx(60 / 0.5, rel=0.01)
    assert tail[5, 0] == pytest.approx(20.0, abs=1e-3)  # the direct sound is unchanged


def test_augment_is_finite_and_differs_from_draw_to_draw() -> None:
    rng = np.random.default_rng(3)
    x = random_features(150)
    outs = [augment(x, rng, AugmentOptions(), random_features(40, seed=9)) for _ in range(30)]
    assert all(np.isfinite(o).all() and o.dtype == np.float32 and o.shape[1] == 80 for o in outs)
    assert len({o.tobytes() for o in outs}) == 30
    assert {len(o) for o in outs} != {150}


def best_path_score(log_probs: np.ndarray, tokens: list[int]) -> tuple[float, set[tuple[int, ...]]]:
    """Score and label paths of the best alignments, by trying every sequence of labels."""
    best, paths = -np.inf, set()
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        merged = [k for k, _ in itertools.groupby(path) if k != 0]
        if merged != tokens:
            continue
        score = float(sum(log_probs[t, k] for t, k in enumerate(path)))
        if score > best + 1e-9:
            best, paths = score, {path}
        elif abs(score - best) <= 1e-9:
            paths.add(path)
    return best, paths


@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [2, 1, 2]])
def test_alignment_is_on_a_best_path(tokens: list[int]) -> None:
    rng = np.random.default_rng(len(tokens))
    for _ in range(5):
        logits = rng.normal(0, 2, (6, 3))
        log_probs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        frames = align(log_probs, tokens)
        _, paths = best_path_score(log_probs, tokens)
        assert any(all(path[f] == t for f, t in zip(frames, tokens)) for path in paths)
        assert frames == sorted(frames)


def test_alignment_refuses_too_few_frames() -> None:
    with pytest.raises(ValueError, match="frames"):
        align(np.zeros((2, 3), np.float32), [1, 1])


def test_words_are_cut_at_the_quietest_frame() -> None:
    features = np.full((200, 80), 15.0, np.float32)
    features[97] = 2.0
    tokens = tokenize("one two")
    frames = [10, 12, 14, 24, 30, 32, 34]
    clip = Clip("a.flac", "one two", "s", "train", "digits-human", 1000, 200)
    first, second = cut(clip, features, frames, tokens, rate=4)
    assert (first.text, second.text) == ("one", "two")
    assert first.start + first.frames == second.start == 1000 + 97


def test_batches_leave_room_for_ctc_and_match_their_text() -> None:
    features = [random_features(60, seed=i) for i in range(12)]
    clips, start = [], 0
    for i, x in enumerate(features):
        kind = ("digits-human", "seven", "fsdd-a") if i % 2 else ("sentences-human", "a cat sat", f"s{i}")
        clips.append(Clip(f"{i}.flac", kind[1], kind[2], "train", kind[0], start, len(x)))
        start += len(x)
    store = FeatureStore(tuple(clips), np.concatenate(features).astype(np.float16))
    empty = FeatureStore((), np.zeros((0, 80), np.float16))
    mixer = Mixer(store, empty, MixOptions(batch_frames=1500, pool=2), AugmentOptions(), seed=0)
    batches = mixer.batches()
    for _ in range(6):
        batch = next(batches)
        assert batch.feats.shape[0] * batch.feats.shape[1] <= 1500 or len(batch.feats) == 1
        for row, length, frames in zip(batch.tokens, batch.token_lengths, batch.feat_lengths):
            ids = row[: int(length)].tolist()
            text = "".join(UNITS[i] for i in ids).replace("▁", " ")
            assert set(text.split()) <= {"seven", "a", "cat", "sat"}
            repeats = sum(a == b for a, b in zip(ids, ids[1:]))
            assert ((int(frames) - 1) // 2 - 1) // 2 >= len(ids) + repeats
        assert (batch.tokens >= 0).sum(1).tolist() == batch.token_lengths.tolist()


def test_isolated_digits_are_drawn_alike_however_many_takes_there_are() -> None:
    """200 takes of "zero" and 5 of "two" must not teach that strings are mostly zeros."""
    words = ["zero"] * 200 + ["two"] * 5
    clips = [Clip(f"{i}.flac", w, f"s{i % 100}", "train", "digits-extra", 60 * i, 60) for i, w in enumerate(words)]
    store = FeatureStore(tuple(clips), np.tile(random_features(60), (len(clips), 1)).astype(np.float16))
    empty = FeatureStore((), np.zeros((0, 80), np.float16))
    mixer = Mixer(store, empty, MixOptions(), AugmentOptions(), seed=0)
    drawn = [text for _ in range(100) for text in mixer._parts("joined_digits")[1]]
    share = drawn.count("two") / len(drawn)
    assert abs(share - 0.5) < 4 * (0.25 / len(drawn)) ** 0.5  # four standard deviations of a fair coin


def test_nobody_speaks_and_nothing_is_written() -> None:
    """A recognizer that never heard an empty room writes words into one."""
    empty = FeatureStore((), np.zeros((0, 80), np.float16))
    only = {k: 0.0 for k in ("joined_digits", "human_digits", "synthetic_digits", "human_sentences", "keywords")}
    mix = MixOptions(**only, synthetic_sentences=0.0, silence=1.0, batch_frames=2000, pool=2)
    batch = next(Mixer(empty, empty, mix, AugmentOptions(), seed=0).batches())
    assert not batch.token_lengths.any() and (batch.tokens == -1).all()
    model = U2pp(from_wenet(yaml.safe_load(CONFIGURATION.read_text())))
    losses = model.losses(batch.feats, batch.feat_lengths, batch.tokens, batch.token_lengths, chunk=-1)
    assert torch.isfinite(losses.total)
    # The only path without tokens is blank in every frame.
    memory, valid = model.encoder(batch.feats, batch.feat_lengths)
    blanks = (-model.ctc(memory)[:, :, 0] * valid.squeeze(1)).sum() / len(batch.feats)
    torch.testing.assert_close(losses.ctc, blanks, rtol=1e-4, atol=1e-4)


def test_an_empty_room_has_the_spectrum_of_noise_of_one_level() -> None:
    """What no_speech draws as hiss is the recognizer's filter bank of white noise, up to level and colour."""
    rng = np.random.default_rng(3)
    real = StreamingFbank(FeatureOptions()).accept(rng.normal(0, 1e-2, 16000).astype(np.float32))
    drawn = no_speech(np.random.default_rng(1), 300)
    # Neighbouring frames of one room differ as much as those of real noise.
    assert np.diff(drawn, axis=0).std() == pytest.approx(np.diff(real, axis=0).std(), rel=0.1)


def test_the_quiet_around_a_word_is_cut_and_the_word_is_not() -> None:
    x = np.full((100, 80), 2.0, np.float32)
    x[30:60] = 12.0
    assert np.array_equal(tighten(x, 5, 7), x[25:67])
    assert np.array_equal(tighten(x[30:60], 5, 7), x[30:60])


def test_collate_pads_with_zeros_and_minus_one() -> None:
    batch = collate([(random_features(5), [3, 4]), (random_features(8), [5])])
    assert batch.feats.shape == (2, 8, 80) and not batch.feats[0, 5:].any()
    assert torch.equal(batch.tokens, torch.tensor([[3, 4], [5, -1]]))


def test_learning_rate_rises_then_falls_to_the_floor() -> None:
    options = TrainOptions(steps=1000, warmup=100)
    rates = [learning_rate(s, options) for s in range(1001)]
    assert max(rates) == pytest.approx(options.peak) and rates.index(max(rates)) in (99, 100)
    assert rates[-1] == pytest.approx(options.floor)
    assert all(a >= b for a, b in zip(rates[100:], rates[101:]))


def test_dev_strings_hold_out_speakers_and_use_every_recording_once() -> None:
    corpus = SHARED / "speech" / "digits-human"
    if not corpus.is_dir():
        pytest.skip(f"{corpus} is not here (human recordings are not part of the repository)")
    dev, train = digit_strings(corpus), digit_strings(corpus, split="train")
    assert not {u.speaker for u in dev} & {u.speaker for u in train}
    assert all(3 <= len(u.text.split()) <= 8 for u in dev)
    assert sum(len(u.text.split()) for u in dev if u.speaker == "fsdd-theo") >= 470  # of 480; a short rest is dropped
    again = digit_strings(corpus)
    assert all(np.array_equal(a.samples, b.samples) and a.text == b.text for a, b in zip(dev, again))


def test_average_of_snapshots_is_their_mean(tmp_path: Path) -> None:
    a, b = {"x": torch.tensor([1.0, 3.0])}, {"x": torch.tensor([2.0, 5.0])}
    for name, state in (("a.pt", a), ("b.pt", b)):
        torch.save({k: v.half() for k, v in state.items()}, tmp_path / name)
    mean = average([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert mean["x"].tolist() == [1.5, 4.0]
    torch.save({"y": torch.zeros(2)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="one model"):
        average([tmp_path / "a.pt", tmp_path / "c.pt"])
