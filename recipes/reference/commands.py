"""Isolated words of many speakers, drawn into strings: command words for training.

Some words have five hundred recordings and some a dozen, some speakers fifty and most two. A word is drawn with the
cube root of its number of recordings, so that the rare ones are met without being learnt by heart; half of the words
after the first are the same speaker's, where he has others.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from recipes.reference.store import Clip

_WORDS = (
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero"
)
VOCABULARY = tuple(_WORDS.split())
"""The words of Speech Commands."""
SYNTHETIC = 0.2  # share of the strings that a synthesiser speaks, if there is one
SAME = 0.5  # share of the words after the first that the first one's speaker says


class Words:
    """One-word clips of people (folder ``commands-human``) and of synthesisers (any other ``commands…``)."""

    def __init__(self) -> None:
        self._takes: dict[bool, dict[str, list[Clip]]] = {True: defaultdict(list), False: defaultdict(list)}
        self._own: dict[str, list[Clip]] = defaultdict(list)

    def __bool__(self) -> bool:
        return any(self._takes.values())

    def add(self, clip: Clip) -> None:
        self._takes[clip.corpus == "commands-human"][clip.text].append(clip)
        self._own[clip.speaker].append(clip)

    def draw(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """``count`` clips, one word each."""
        human = bool(self._takes[True]) and (not self._takes[False] or rng.random() >= SYNTHETIC)
        takes = self._takes[human]
        words = sorted(takes)
        chances = np.cbrt([len(takes[word]) for word in words])
        chances /= chances.sum()
        picked: list[Clip] = []
        for _ in range(count):
            own = takes[words[int(rng.choice(len(words), p=chances))]]
            if picked and len(same := self._own[picked[0].speaker]) > 1 and rng.random() < SAME:
                own = same
            picked.append(own[int(rng.integers(len(own)))])
        return picked
