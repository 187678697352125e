"""The split by speaker: nobody in two parts, words shared out as promised, the same every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import SHARED

from recipes.reference.augment import AugmentOptions
from recipes.reference.batches import Mixer, MixOptions
from recipes.reference.commands import VOCABULARY, Words
from recipes.reference.devset import command_strings
from recipes.reference.split import CLIPS, CORPORA, deal_commands, deal_digits, read, split, write
from recipes.reference.spoken_words import plan
from recipes.reference.store import Clip, FeatureStore

SHARED = SHARED / "speech"
Row = dict[str, Any]


def row(speaker: str, text: str, part: str = "train") -> Row:
    return {"audio": f"{speaker}/{text}.flac", "text": text, "speaker": speaker, "split": part, "seconds": 1.0}


def crowd() -> list[Row]:
    """300 speakers of "go" and "no", 60 of whom also say "tree"; one with 40 clips; 30 official validation speakers."""
    rows = []
    for i in range(300):
        part = "dev" if i % 10 == 0 else "train"
        words = ["go", "no"] + (["tree"] if i % 5 == 1 else [])
        rows += [row(f"sc-{i:03d}", word, part) for word in words]
    rows += [row("sc-long", "tree" if i < 3 else "go") for i in range(40)]
    rows += [row("sc-single", "tree")]
    return rows


def test_commands_parts_have_their_words_and_training_the_rest() -> None:
    rows = crowd()
    parts = deal_commands(rows)
    count = {part: Counter(r["text"] for r in rows if parts[r["speaker"]] == part) for part in ("train", "dev", "test")}
    for part in ("dev", "test"):
        assert count[part]["go"] >= CLIPS and count[part]["no"] >= CLIPS
        assert count[part]["tree"] >= 64 // 6  # 60 + 3 + 1 clips: a rare word
    assert count["train"]["tree"] == 64 - 2 * (64 // 6)
    assert all(parts[r["speaker"]] != "train" for r in rows if r["split"] == "dev")
    assert parts["sc-long"] == parts["sc-single"] == "train"


def test_commands_do_not_depend_on_the_order_of_the_manifest() -> None:
    assert deal_commands(crowd()) == deal_commands(crowd()[::-1])


def test_digit_speakers_who_chose_weights_stay_and_judges_leave_training() -> None:
    rows = [row("fsdd-lucas", "one"), row("fsdd-george", "one"), row("fsdd-theo", "one", "dev")]
    rows += [row(f"so762-{i:04d}", "one two", "dev" if i < 3 else "train") for i in range(20) for _ in range(2)]
    rows += [row("so762-once", "one two")]
    parts = deal_digits(rows)
    assert (parts["fsdd-lucas"], parts["fsdd-george"], parts["fsdd-theo"]) == ("test", "train", "dev")
    assert Counter(p for s, p in parts.items() if s.startswith("so762")) == {"train": 10, "test": 8, "dev": 3}
    assert all(parts[f"so762-{i:04d}"] == "dev" for i in range(3))
    assert parts["so762-once"] == "train"


def test_a_speaker_has_one_part_in_all_corpora() -> None:
    digits = [row(f"so762-{i:04d}", "one two") for i in range(20) for _ in range(2)]
    sentences = [row(f"so762-{i:04d}", "hello") for i in range(25)]
    keywords = [row("unknown", "alexa"), row("unknown", "alexa", "dev")]
    done = split({"digits-human": digits, "sentences-human": sentences, "keywords-human": keywords})
    part_of = {r["speaker"]: r["split"] for r in done["digits-human"]}
    assert set(part_of.values()) == {"train", "test"}
    assert all(r["split"] == part_of.get(r["speaker"], "train") for r in done["sentences-human"])
    assert [r["split"] for r in done["keywords-human"]] == ["train", "dev"]


def test_written_manifests_are_read_like_the_shared_ones(tmp_path: Path) -> None:
    for name in CORPORA:
        (tmp_path / "speech" / name).mkdir(parents=True)
    rows = {name: [row("a", "go")] for name in CORPORA}
    write(rows, tmp_path / "speech")
    found = read(tmp_path / "speech")
    assert found["noise"][0]["audio"] == str(tmp_path / "speech" / "noise" / "a" / "go.flac")
    write(found, tmp_path / "again")
    assert read(tmp_path / "again") == found  # absolute audio stays what it is


def test_command_strings_are_of_one_speaker_and_use_every_clip_once(tmp_path: Path) -> None:
    for speaker, count in (("a", 9), ("b", 2), ("c", 1)):
        (tmp_path / speaker).mkdir()
        for i in range(count):
            soundfile.write(tmp_path / speaker / f"{i}.flac", np.full(1600, 0.1, np.float32), 16000)
    rows = [
        row(s, "go", "dev") | {"audio": f"{s}/{i}.flac"} for s, n in (("a", 9), ("b", 2), ("c", 1)) for i in range(n)
    ]
    write({"": rows}, tmp_path)
    made = command_strings(tmp_path)
    sizes = {s: [len(u.text.split()) for u in made if u.speaker == s] for s in "abc"}
    assert sizes["b"] == [2] and sizes["c"] == []  # one word is no string
    assert 8 <= sum(sizes["a"]) <= 9 and all(2 <= n <= 5 for n in sizes["a"])
    again = command_strings(tmp_path)
    assert [u.text for u in made] == [u.text for u in again]
    np.testing.assert_array_equal(made[0].samples, again[0].samples)


def test_words_are_drawn_with_the_cube_root_of_their_number() -> None:
    words = Words()
    for text, count in (("go", 1000), ("tree", 8)):
        for i in range(count):
            words.add(Clip("", text, f"{text}-{i}", "train", "commands-human", 0, 50))
    rng = np.random.default_rng(0)
    drawn = [words.draw(rng, 1)[0].text for _ in range(6000)]
    share = drawn.count("tree") / len(drawn)  # cube roots 10 and 2; 5 standard deviations of a binomial
    assert abs(share - 1 / 6) < 5 * np.sqrt(5 / 36 / len(drawn))


def test_half_of_the_later_words_are_the_first_ones_speakers() -> None:
    words = Words()
    for speaker in range(100):
        for text in ("go", "no", "up"):
            words.add(Clip("", text, str(speaker), "train", "commands-human", 0, 50))
    rng = np.random.default_rng(0)
    same = [a.speaker == b.speaker for a, b in (words.draw(rng, 2) for _ in range(4000))]
    expected = 0.5 + 0.5 / 100
    assert abs(np.mean(same) - expected) < 5 * np.sqrt(0.25 / len(same))


def test_the_mixer_joins_commands_and_knows_their_digits() -> None:
    texts = ("go", "no", "one")
    clips = tuple(Clip("", t, str(i), "train", "commands-human", 60 * i, 60) for i, t in enumerate(texts))
    features = np.random.default_rng(0).normal(12, 3, (180, 80)).astype(np.float16)
    empty = FeatureStore((), np.zeros((0, 80), np.float16))
    mix = MixOptions(*[0.0] * 6, joined_commands=1.0)
    mixer = Mixer(FeatureStore(clips, features), empty, mix, AugmentOptions(), seed=0)
    assert mixer.names == ["joined_commands"]
    assert list(mixer.digits) == ["crowd"] and [c.text for c in mixer.digits["crowd"]] == ["one"]
    x, tokens = mixer.draw()
    assert x.shape[1] == 80 and tokens


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/speech")
def test_the_shared_speech_is_split_as_the_issue_wants() -> None:
    corpora = split(read(SHARED))
    speakers: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for name in ("commands-human", "digits-human", "sentences-human"):
        for r in corpora[name]:
            speakers[r["split"]].add(r["speaker"])
    assert not speakers["train"] & speakers["dev"] and not speakers["test"] & (speakers["train"] | speakers["dev"])
    commands = [r for r in corpora["commands-human"] if r["split"] == "test"]
    assert len({r["speaker"] for r in commands}) >= 60
    for part in ("dev", "test"):
        assert {s.split("-")[0] for s in speakers[part]} >= {"sc", "fsdd", "so762"}
    total = Counter(r["text"] for r in corpora["commands-human"])
    dev = Counter(r["text"] for r in corpora["commands-human"] if r["split"] == "dev")
    assert all(dev[word] >= CLIPS for word, count in total.items() if count >= 100)


def test_synthetic_words_are_planned_alike_and_by_no_festival() -> None:
    clips = plan(5, 1, ["en-gb+f1", "en-us+m2"])
    assert clips == plan(5, 1, ["en-gb+f1", "en-us+m2"])
    assert Counter(clip.text for clip in clips) == dict.fromkeys(VOCABULARY, 5)
    assert {clip.engine for clip in clips} == {"espeak", "flite"}
    assert len({clip.path for clip in clips}) == len(clips)


def test_a_fifth_of_the_strings_is_synthetic() -> None:
    words = Words()
    for corpus in ("commands-human", "commands-synthetic"):
        words.add(Clip("", "go", corpus, "train", corpus, 0, 50))
    rng = np.random.default_rng(0)
    drawn = [{clip.corpus for clip in words.draw(rng, 3)} for _ in range(4000)]
    assert all(len(corpora) == 1 for corpora in drawn)  # never mixed
    share = np.mean([corpora == {"commands-synthetic"} for corpora in drawn])
    assert abs(share - 0.2) < 5 * np.sqrt(0.16 / len(drawn))
