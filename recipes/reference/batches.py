"""Endless stream of training batches: a weighted mix of corpora, digit joining, augmentation, length buckets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recipes.reference.augment import (
    LIGHT,
    SILENCE,
    AugmentOptions,
    Features,
    augment,
    change_rate,
    dither_frames,
    no_speech,
)
from recipes.reference.commands import Words
from recipes.reference.store import Clip, FeatureStore

UNITS = ("<blank>", "<unk>", "<sos/eos>", *"abcdefghijklmnopqrstuvwxyz", "'", "▁")
_IDS = {unit: i for i, unit in enumerate(UNITS)}


def tokenize(text: str) -> list[int]:
    """Characters to ids, a space becoming ▁ (WeNet's ``char`` tokenizer)."""
    return [_IDS["▁" if c == " " else c] for c in text]


@dataclass(frozen=True)
class MixOptions:
    """Chance of each kind of utterance, and how they are batched."""

    joined_digits: float = 0.32  # isolated human digits joined into strings
    human_digits: float = 0.14  # human digit strings, sometimes two in a row
    synthetic_digits: float = 0.22
    human_sentences: float = 0.20
    keywords: float = 0.03
    synthetic_sentences: float = 0.09
    neural_digits: float = 0.0  # of a neural synthesiser: folders neural…
    joined_commands: float = 0.0  # isolated command words joined into strings: folders commands…
    silence: float = 0.0  # nobody speaks, nothing is written
    long_pauses: float = 0.0  # share of the others with up to 3 s of that before or after
    max_digits: int = 7
    max_words: int = 6  # of a string of commands
    max_frames: int = 1100  # of one utterance
    batch_frames: int = 8000  # feature frames, with padding
    pool: int = 8  # batches whose utterances are sorted by length together


SPEECH = MixOptions(0.24, 0.10, 0.14, 0.32, 0.04, 0.16)
"""Digits and sentences alike: 200 speakers of sentences keep the encoder general while it learns the digits."""

SENTENCES = MixOptions(0.10, 0.06, 0.04, 0.55, 0.05, 0.20)
"""Mostly sentences, while the encoder learns to hear and spell."""

DIGITS = MixOptions(0.46, 0.16, 0.24, 0.10, 0.02, 0.02)
"""For the last part of training: what the model is for."""

VOICES = MixOptions(0.44, 0.10, 0.06, 0.18, 0.03, 0.05, neural_digits=0.14, silence=0.08, long_pauses=0.25)
"""Digits of as many voices as there are; sentences keep the encoder general."""

COMMANDS = MixOptions(0.28, 0.10, 0.0, 0.16, 0.02, 0.0, joined_commands=0.38, silence=0.06, long_pauses=0.2)
"""Command words beside the digits (``--extra`` a folder commands-human)."""

EASY = MixOptions(0.4, 0.15, 0.45, 0.0, 0.0, 0.0, max_digits=3, max_frames=400, batch_frames=5000)


@dataclass(frozen=True)
class Batch:
    """feats (batch, frames, mel) float32, tokens (batch, tokens) int64 padded with -1, and their lengths."""

    feats: Tensor
    feat_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor


class Mixer:
    """Draws utterances from a store of training clips.

    The folder's name says what a corpus is: ``digits…`` (isolated, or strings), ``sentences…`` and ``keywords…`` are
    people, ``commands…`` isolated words (commands.py); any other is synthetic. Speakers with a few isolated digits only
    are drawn as one: a string of their digits has many voices.
    """

    def __init__(
        self,
        store: FeatureStore,
        noise: FeatureStore,
        mix: MixOptions,
        options: AugmentOptions,
        seed: int,
        digits: list[Clip] | None = None,
    ) -> None:
        self.store, self.noise, self.mix, self.options = store, noise, mix, options
        self.rng = np.random.default_rng(seed)
        self.digits: dict[str, list[Clip]] = defaultdict(list)  # isolated, by speaker
        self.kinds: dict[str, list[Clip]] = defaultdict(list)
        self.words = Words()
        for clip in store.clips:
            self._file(clip)
        few = [speaker for speaker, own in self.digits.items() if len(own) < 30]
        for speaker in few:
            self.digits["crowd"] += self.digits.pop(speaker)
        self.recorded = list(self.digits)  # speakers recorded digit by digit: many takes each
        for clip in digits or []:  # cut from strings by align.py: many speakers, few takes each
            self.digits[clip.speaker].append(clip)
        self.cut = [speaker for speaker in self.digits if speaker not in self.recorded]
        self.takes: dict[str, dict[str, list[Clip]]] = {s: defaultdict(list) for s in self.digits}
        for speaker, own in self.digits.items():
            for clip in own:
                self.takes[speaker][clip.text].append(clip)
        weights = {
            k: getattr(mix, k)
            for k in (
                "joined_digits",
                "human_digits",
                "synthetic_digits",
                "human_sentences",
                "keywords",
                "synthetic_sentences",
                "neural_digits",
                "joined_commands",
                "silence",
            )
        }
        present = {
            k: w
            for k, w in weights.items()
            if w
            and (
                self.kinds[k]
                or k == "silence"
                or (k == "joined_digits" and self.digits)
                or (k == "joined_commands" and self.words)
            )
        }
        self.names = list(present)
        self.chances = np.array(list(present.values())) / sum(present.values())

    def _file(self, clip: Clip) -> None:
        if clip.frames < 12 or clip.frames > self.mix.max_frames or not clip.text:
            return
        if clip.corpus.startswith("commands"):
            self.words.add(clip)
            if clip.text in DIGIT_WORDS and clip.corpus == "commands-human":
                self.digits[clip.speaker].append(clip)
        elif clip.corpus.startswith("digits") and clip.text in DIGIT_WORDS:
            self.digits[clip.speaker].append(clip)
        elif clip.corpus.startswith("digits"):
            self.kinds["human_digits"].append(clip)
        elif clip.corpus.startswith("sentences"):
            self.kinds["human_sentences"].append(clip)
        elif clip.corpus.startswith("keywords"):
            self.kinds["keywords"].append(clip)
        elif clip.corpus.startswith("neural"):
            self.kinds["neural_digits"].append(clip)
        elif set(clip.text.split()) <= DIGIT_WORDS:
            self.kinds["synthetic_digits"].append(clip)
        else:
            self.kinds["synthetic_sentences"].append(clip)

    def draw(self) -> tuple[Features, list[int]]:
        """One augmented utterance (frames, mel) and its tokens."""
        while True:
            kind = self.names[int(self.rng.choice(len(self.names), p=self.chances))]
            if kind == "silence":
                return self._silence(int(self.rng.integers(60, 900))), []
            parts, texts = self._parts(kind)
            x, pauses = self._join(parts)
            noise = self.draw_noise() if self.noise.clips else None
            hard = self.rng.random() < (0.5 if kind.startswith("joined") else 0.2)
            x = augment(x, self.rng, self.options, noise, pauses if hard else None)
            tokens = tokenize(" ".join(texts))
            repeats = sum(a == b for a, b in zip(tokens, tokens[1:]))
            if len(x) <= self.mix.max_frames and (len(x) - 3) // 4 - 1 >= len(tokens) + repeats:  # CTC needs the room
                return x, tokens

    def _silence(self, frames: int) -> Features:
        """A room, in half of the cases with recorded noise (frames, mel)."""
        x = no_speech(self.rng, frames)
        if self.noise.clips and self.rng.random() < 0.5:
            noise = self.draw_noise() + np.float32(self.rng.uniform(-9, 1))
            x = np.logaddexp(x, np.take(noise, range(frames), axis=0, mode="wrap"))
        if self.rng.random() < self.options.dither:
            x = np.logaddexp(x, np.take(dither_frames(), range(frames), axis=0, mode="wrap"))
        return np.maximum(x, np.float32(SILENCE))

    def draw_noise(self) -> Features:
        """Up to 12 s of recorded noise (frames, mel)."""
        clip = self.noise.clips[int(self.rng.integers(len(self.noise.clips)))]
        x = self.noise.of(clip)
        start = int(self.rng.integers(max(1, len(x) - 300)))
        return x[start : start + 1200]

    def _parts(self, kind: str) -> tuple[list[Features], list[str]]:
        rng = self.rng
        if kind == "joined_digits":
            picked = self._digits(int(rng.integers(1, self.mix.max_digits + 1)))
        elif kind == "joined_commands":
            picked = self.words.draw(rng, int(rng.integers(1, self.mix.max_words + 1)))
        else:
            own = self.kinds[kind]
            count = 2 if kind.endswith("digits") and self.mix.max_digits > 3 and rng.random() < 0.3 else 1
            first = own[int(rng.integers(len(own)))]
            picked = [first]
            if count == 2:
                same = [c for c in own if c.speaker == first.speaker]
                picked.append(same[int(rng.integers(len(same)))])
        parts = [self.store.of(c) for c in picked]
        if kind.startswith("joined"):  # each word at a pace of its own
            parts = [self._trim(change_rate(p, rng.uniform(0.9, 1.15))) for p in parts]
        return parts, [c.text for c in picked]

    def _digits(self, count: int) -> list[Clip]:
        """Isolated digits of one speaker, or of the crowd; every digit as often as any other."""
        rng = self.rng
        draw, crowd = rng.random(), "crowd" in self.digits
        if self.cut and draw < 0.3:
            speaker = self.cut[int(rng.integers(len(self.cut)))]
        elif crowd and draw < 0.6:
            speaker = "crowd"
        else:
            speaker = self.recorded[int(rng.integers(len(self.recorded)))]
        takes = self.takes[speaker]
        words = sorted(takes)
        drawn = [takes[words[int(i)]] for i in rng.integers(len(words), size=count)]
        return [own[int(rng.integers(len(own)))] for own in drawn]

    def _trim(self, x: Features) -> Features:
        """Sometimes cut a few frames off the ends or fade them, as tight trimming and noise gates do.

        Weak consonants suffer from that first; the rest of the word then has to be enough.
        """
        rng = self.rng
        if rng.random() < 0.6:
            x = tighten(x, int(rng.integers(5, 16)), int(rng.integers(5, 16)))
        if len(x) > 30 and rng.random() < 0.3:
            head, tail = (int(n) for n in rng.integers(0, 5, size=2))
            x = x[head : len(x) - tail]
        if rng.random() < 0.3:
            size = int(rng.integers(3, 10))
            fade = np.zeros(len(x), np.float32)
            fade[:size] = np.linspace(-rng.uniform(0.5, 3.5), 0, size)[: len(x)]
            x = x + fade[:, None]
        return x

    def _join(self, parts: list[Features]) -> tuple[Features, NDArray[np.bool_]]:
        """Parts with pauses between and around them, and where the pauses are.

        A pause is digital silence or a quiet room.
        """
        rng = self.rng
        if rng.random() < 0.35:
            floor = np.full(80, SILENCE, dtype=np.float32)
        else:
            quiet = np.sort(np.concatenate(parts), axis=0)
            floor = quiet[: max(1, len(quiet) // 20)].mean(0) - np.float32(rng.uniform(0, 3))

        def pause(low: int, high: int) -> Features:
            size = int(rng.integers(low, high + 1))
            return floor + np.log(rng.gamma(6.0, 1 / 6.0, (size, 80))).astype(np.float32)

        pieces = [pause(0, 40)]
        for part in parts:
            pieces += [part, pause(2, 35)]
        pieces[-1] = pause(0, 50)
        if rng.random() < self.mix.long_pauses:
            end = -1 if rng.random() < 0.7 else 0
            room = no_speech(rng, int(rng.integers(40, 300)))
            pieces[end] = np.minimum(room, floor + np.float32(rng.uniform(0, 2)) + (room - room.mean(0)))
        pauses = np.concatenate([np.full(len(piece), i % 2 == 0) for i, piece in enumerate(pieces)])
        return np.maximum(np.concatenate(pieces), np.float32(SILENCE)), pauses

    def batches(self) -> Iterator[Batch]:
        """Endless batches of at most ``batch_frames`` padded frames, lengths alike within a batch."""
        mean = 250
        while True:
            pool = [self.draw() for _ in range(self.mix.pool * self.mix.batch_frames // mean)]
            pool.sort(key=lambda u: len(u[0]))
            groups: list[list[tuple[Features, list[int]]]] = [[]]
            for utterance in pool:
                if len(utterance[0]) * (len(groups[-1]) + 1) > self.mix.batch_frames:
                    groups.append([])
                groups[-1].append(utterance)
            for i in self.rng.permutation(len(groups)):
                yield collate(groups[int(i)])


def tighten(x: Features, before: int, after: int) -> Features:
    """Cut the quiet off both ends of a word (frames, mel), leaving ``before`` and ``after`` frames of it."""
    loud = np.exp(x / 2).mean(1)  # of amplitudes, in which a recording's hiss is small
    low, high = np.quantile(loud, 0.1), loud.max()
    found = np.flatnonzero(loud > low + 0.08 * (high - low))
    if not len(found):
        return x
    return x[max(0, found[0] - before) : found[-1] + 1 + after]


DIGIT_WORDS = {"zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def collate(utterances: list[tuple[Features, list[int]]]) -> Batch:
    """Pad a list of utterances into one batch."""
    frames, sizes = [len(x) for x, _ in utterances], [len(t) for _, t in utterances]
    feats = torch.zeros(len(utterances), max(frames), utterances[0][0].shape[1])
    tokens = torch.full((len(utterances), max(1, *sizes)), -1, dtype=torch.long)
    for i, (x, t) in enumerate(utterances):
        feats[i, : len(x)] = torch.from_numpy(x)
        tokens[i, : len(t)] = torch.tensor(t, dtype=torch.long)
    return Batch(feats, torch.tensor(frames), tokens, torch.tensor(sizes))


__all__ = [
    "COMMANDS",
    "DIGITS",
    "EASY",
    "LIGHT",
    "SENTENCES",
    "SPEECH",
    "UNITS",
    "VOICES",
    "Batch",
    "MixOptions",
    "Mixer",
    "collate",
    "tighten",
    "tokenize",
]
