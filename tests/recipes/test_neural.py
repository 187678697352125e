"""What the neural synthesiser is asked to say: the words of the transcript, by the voice of the manifest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recipes.reference.neural import AMERICAN, BRITISH, TOKENS, plan, read_voices, style

VOICES = ["af_bella", "am_adam", "bf_emma", "bm_george"]


def test_lines_are_said_word_for_word_in_the_voice_s_accent() -> None:
    said = Counter[str]()
    for index in range(500):
        line = plan(index, VOICES)
        assert line == plan(index, VOICES)
        table = BRITISH if line.voices[0][0] == "b" else AMERICAN
        assert line.phonemes().removesuffix(".").split(line.separator) == [table[w] for w in line.words]
        assert all(c in TOKENS for c in line.phonemes())
        assert 1 <= len(line.words) <= 8 and len(set(line.voices)) == len(line.voices)
        said.update(line.words)
    assert set(said) == set(AMERICAN) and min(said.values()) > 50


def test_a_blend_is_the_weighted_mean_of_two_styles() -> None:
    rng = np.random.default_rng(0)
    styles = {name: rng.normal(size=(510, 256)).astype(np.float32) for name in VOICES}
    blended = next(line for line in (plan(i, VOICES) for i in range(100)) if len(line.voices) == 2)
    first, second = blended.voices
    wanted = blended.blend * styles[first][11] + (1 - blended.blend) * styles[second][11]
    np.testing.assert_allclose(style(styles, blended, 12)[0], wanted, rtol=1e-5, atol=1e-6)
    single = next(line for line in (plan(i, VOICES) for i in range(100)) if len(line.voices) == 1)
    np.testing.assert_array_equal(style(styles, single, 3)[0], styles[single.voices[0]][2])


def test_voices_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected voices"):
        read_voices(tmp_path)
    np.zeros(7, np.float32).tofile(tmp_path / "x.bin")
    with pytest.raises(ValueError, match="found 7"):
        read_voices(tmp_path)
