"""Texts of the synthetic training set (recipes/reference/texts.py); no synthesiser is needed."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from recipes.reference.texts import DIGIT_WORDS, Vocabulary, digit_string, normalise, number_words, sentence

TRANSCRIPT = re.compile(r"[a-z']+( [a-z']+)*")
SPOKEN = re.compile(r"[A-Za-z' ,.?]+")  # what the festival script accepts inside a string


def write_manifest(path: Path, *entries: tuple[str, str]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "split": split}) + "\n" for text, split in entries), "utf-8")
    return path


@pytest.mark.parametrize(
    ("spoken", "transcript"),
    [
        ("Two,  oh; Nine.", "two oh nine"),
        ("I don't know, it's five o'clock?", "i don't know it's five o'clock"),
        ("'Twenty-one' caf\u00e9s", "twenty one caf s"),
        (" ... ", ""),
    ],
)
def test_normalise(spoken: str, transcript: str) -> None:
    assert normalise(spoken) == transcript


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (305, "three hundred five"),
        (1010, "one thousand ten"),
        (987654, "nine hundred eighty seven thousand six hundred fifty four"),
    ],
)
def test_number_words(number: int, words: str) -> None:
    assert number_words(number) == words


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_number_words_range(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        number_words(number)


@pytest.mark.parametrize("max_digits", [1, 6, 8])
def test_digit_strings_have_1_to_max_digits(max_digits: int) -> None:
    lengths = Counter(len(normalise(digit_string(3, i, max_digits)).split()) for i in range(500))
    assert set(lengths) == set(range(1, max_digits + 1))
    assert min(lengths.values()) > 0.5 * 500 / max_digits  # no length is rare


@pytest.mark.parametrize("max_digits", [0, 9])
def test_digit_string_bounds(max_digits: int) -> None:
    with pytest.raises(ValueError, match="max_digits"):
        digit_string(1, 0, max_digits)


def test_every_digit_occurs_often_and_nothing_else() -> None:
    counts = Counter(word for i in range(2000) for word in normalise(digit_string(1, i, 6)).split())
    assert set(counts) == set(DIGIT_WORDS)
    assert min(counts.values()) > 0.04 * sum(counts.values())  # a uniform choice of 11 would give 0.09


def test_some_digit_strings_pause_and_some_do_not() -> None:
    spoken = [digit_string(1, i, 6) for i in range(300)]
    assert 60 < sum("," in text for text in spoken) < 200


def test_texts_depend_on_seed_and_index_only() -> None:
    digits = [digit_string(7, i, 6) for i in range(50)]
    sentences = [sentence(7, i) for i in range(50)]
    assert [digit_string(7, i, 6) for i in reversed(range(50))] == digits[::-1]
    assert [sentence(7, i) for i in reversed(range(50))] == sentences[::-1]
    assert [digit_string(8, i, 6) for i in range(50)] != digits
    assert [sentence(8, i) for i in range(50)] != sentences


def test_sentences_are_short_clean_and_varied() -> None:
    spoken = [sentence(1, i) for i in range(3000)]
    for text in spoken:
        assert SPOKEN.fullmatch(text), text
        assert TRANSCRIPT.fullmatch(normalise(text)), text
        assert 1 <= len(normalise(text).split()) <= 22, text
    assert len(set(spoken)) > 2000
    assert len({word for text in spoken for word in normalise(text).split()}) > 500
    assert sum(text.endswith("?") for text in spoken) > 150


def test_vocabulary_recombines_the_train_split_only(tmp_path: Path) -> None:
    manifest = write_manifest(
        tmp_path / "manifest.jsonl", ("red kites fly", "train"), ("kites fly home", "train"), ("secret words", "dev")
    )
    vocabulary = Vocabulary.read([manifest])
    spoken = [sentence(1, i, vocabulary, recombined=1.0) for i in range(200)]
    words = Counter(word for text in spoken for word in normalise(text).split())
    assert set(words) == {"red", "kites", "fly", "home"}
    assert all(3 <= len(normalise(text).split()) <= 9 for text in spoken)
    # "red" is followed by "kites" only: a pair that no transcript has can only follow a sentence end
    assert all(f"red {word}" not in text.lower() for text in spoken for word in ("red", "fly", "home"))


def test_vocabulary_share_and_order_of_transcripts() -> None:
    forward, backward = Vocabulary(["red kites", "blue kites"]), Vocabulary(["blue kites", "red kites", "red kites"])
    assert [sentence(1, i, forward) for i in range(60)] == [sentence(1, i, backward) for i in range(60)]
    share = sum("kites" in sentence(1, i, forward) for i in range(1000)) / 1000
    assert 0.33 < share < 0.47


def test_empty_vocabulary_leaves_the_templates(tmp_path: Path) -> None:
    empty = Vocabulary.read([write_manifest(tmp_path / "m.jsonl", ("only dev text", "dev"))])
    assert all(normalise(sentence(1, i, empty)) for i in range(50))


def test_vocabulary_names_the_bad_line(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.jsonl", ("fine", "train"))
    manifest.write_text(manifest.read_text() + "not json\n")
    with pytest.raises(ValueError, match=r"m\.jsonl:2"):
        Vocabulary.read([manifest])
