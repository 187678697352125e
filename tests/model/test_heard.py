"""What the model hears and how its tokens become text, as train.yaml and dictionaries of every age say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_helpers import (
    MEL,
    features,
    notes_of,
    random_state,
    rewrite,
    train_yaml,
    write_experiment,
)

from edge.export.convert import convert
from edge.model.checkpoint import ConfigError, load_experiment
from edge.model.train_yaml import from_wenet

# What the model hears


def old_settings(**extraction: Any) -> dict[str, Any]:
    """Features as v0 and v1 wrote them."""
    data = train_yaml()
    del data["dataset_conf"], data["model"]
    data["raw_wav"] = True
    data["collate_conf"] = {
        "spec_aug": True,
        "feature_extraction_conf": {
            "feature_type": "fbank",
            "mel_bins": MEL,
            "frame_shift": 10,
            "frame_length": 25,
            "using_pitch": False,
            **extraction,
        },
    }
    return data


def test_frame_lengths_of_v1_are_honoured() -> None:
    found = from_wenet(old_settings(frame_shift=12.5, frame_length=50)).features
    assert (found.num_mel_bins, found.frame_shift_ms, found.frame_length_ms) == (MEL, 12.5, 50.0)


HEARD: dict[str, tuple[dict[str, Any], str]] = {
    "pitch of Kaldi": ({**old_settings(), "raw_wav": False, "input_dim": 83}, "raw_wav: false with input_dim 83"),
    "pitch of Kaldi, v2": (train_yaml(raw_wav=False, input_dim=83, dataset_conf={}), "80 mel bins and pitch"),
    "pitch of few bins": ({**old_settings(), "raw_wav": False, "input_dim": 23}, "20 mel bins and pitch"),
    "pitch asked for": ({**old_settings(using_pitch=True), "input_dim": 23}, "using_pitch: true with input_dim 23"),
    "cepstra of v1": (old_settings(feature_type="mfcc"), "feature_extraction_conf.feature_type: 'mfcc'"),
    "cepstra of Kaldi": ({**old_settings(), "raw_wav": False, "input_dim": 39}, "raw_wav: false with input_dim 39"),
    "raw_wav": (train_yaml(raw_wav="no"), "raw_wav: expected bool, found 'no'"),
    "mel_bins": (old_settings(mel_bins=40), "input_dim 20 differs from fbank_conf.num_mel_bins 40"),
    "frame_shift": (old_settings(frame_shift="x"), "collate_conf.feature_extraction_conf.frame_shift: expected float"),
    "high_freq": (
        train_yaml(dataset_conf={"fbank_conf": {"num_mel_bins": MEL, "high_freq": 7600}}),
        "fbank_conf.high_freq: 7600 is not supported; supported: 0.0",
    ),
}


@pytest.mark.parametrize(("data", "text"), HEARD.values(), ids=HEARD)
def test_features_that_are_not_computed_here(data: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_wenet(data)
    assert text in str(caught.value), caught.value


def test_features_that_are_told_of() -> None:
    said: list[str] = []
    from_wenet({**old_settings(), "raw_wav": False}, say=said.append)
    from_wenet(old_settings(using_pitch=True), say=said.append)
    from_wenet(train_yaml(input_dim=83, dataset_conf={}), say=said.append)
    from_wenet(train_yaml(dataset_conf={"fbank_conf": {"num_mel_bins": MEL, "sharpness": 2}}), say=said.append)
    expected = ("raw_wav: false", "using_pitch: true", "input_dim 83", "fbank_conf.sharpness")
    assert len(said) == 4 and all(text in line for text, line in zip(expected, said)), said


# How tokens become text

DICTIONARIES: dict[str, tuple[str, dict[str, Any], list[int], str]] = {
    # tokens after <blank> <unk> <sos/eos>, settings, ids, text
    "characters": ("▁ a b c", {}, [4, 5, 3, 6], "ab c"),
    "sentence pieces": ("▁he llo ▁you", {}, [3, 4, 5], "hello you"),
    "words": ("hello world 你 好", {}, [3, 4, 5, 6], "hello world 你好"),
    "syllables": ("ni3 hao3 shi4 jie4", {}, [3, 4, 5, 6], "ni3 hao3 shi4 jie4"),
    "words by setting": ("a b c", {"tokenizer_conf": {"split_with_space": True}}, [3, 4, 5], "a b c"),
    "words by setting of v2": ("a b c", {"dataset_conf": {"split_with_space": True}}, [3, 4, 5], "a b c"),
    "connected": ("ab cd", {"tokenizer_conf": {"connect_symbol": " "}}, [3, 4], "ab cd"),
    "not connected": ("ab cd", {"tokenizer_conf": {"connect_symbol": ""}}, [3, 4], "abcd"),
    "subword-nmt": ("hel@@ lo you", {}, [3, 4, 5], "hello you"),
    "wordpiece": ("hel ##lo you", {}, [3, 4, 5], "hello you"),
    "bytes of GPT-2": ("Ġhello Ġä½ł å¥½", {}, [3, 4, 5], "hello 你好"),
    "Chinese characters": ("你 好 ▁HI ▁YOU", {}, [3, 4, 5, 6], "你好 HI YOU"),
    "Chinese, few letters": ("你 好 A B", {}, [3, 4, 5, 6], "你好AB"),
    "bytes of SentencePiece": ("▁a ▁b <0xE4> <0xBD> <0xA0>", {}, [3, 5, 6, 7], "a你"),
}


@pytest.mark.parametrize(("symbols", "settings", "ids", "text"), DICTIONARIES.values(), ids=DICTIONARIES)
def test_how_tokens_join(tmp_path: Path, symbols: str, settings: dict[str, Any], ids: list[int], text: str) -> None:
    tokens = ["<blank>", "<unk>", "<sos/eos>", *symbols.split()]
    data = train_yaml(output_dim=len(tokens))
    for name, value in settings.items():
        data[name].update(value)
    folder = write_experiment(tmp_path / "exp", data)
    (folder / "units.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf-8")
    found = load_experiment(folder)
    from edge.runtime.tokens import SymbolTable

    table = SymbolTable(found.tokens, found.joining)
    assert table.text(ids) == text


def test_a_bundle_keeps_how_tokens_join(tmp_path: Path) -> None:
    from edge.runtime.bundle import Bundle

    tokens = ["<blank>", "<unk>", "<sos/eos>", *["ni3", "hao3", "shi4", "jie4", "ma5", "wo3", "men2", "ta1", "de5"]]
    folder = write_experiment(tmp_path / "exp", train_yaml())
    (folder / "units.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf-8")
    convert(folder, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").tokens.text([3, 4]) == "ni3 hao3"


SPECIALS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "as train.yaml says": ("<blank> <unk> <sos/eos> a b", {"<sos>": 2, "<eos>": 2}, []),
    "last, by default": ("<blank> <unk> a b <sos/eos>", {}, []),
    "a letter is sos": ("<blank> <unk> <sos/eos> a b", {}, ["token 4 is <sos>, which is 'b'", "has <sos/eos> at 2"]),
    "blank is elsewhere": ("a <unk> <blank> b <sos/eos>", {}, ["token 0 is <blank>, which is 'a'", "<blank> at 2"]),
    "two of a pair": ("<blank> <sos> <eos> a b", {"<sos>": 1, "<eos>": 3}, ["token 3 is <eos>, which is 'a'"]),
    "no sos at all": ("<blank> <unk> a b c", {}, ["token 4 is <sos>, which is 'c'", "has no <sos/eos>"]),
}


@pytest.mark.parametrize(("symbols", "special", "texts"), SPECIALS.values(), ids=SPECIALS)
def test_special_tokens_that_are_elsewhere(
    tmp_path: Path, symbols: str, special: dict[str, int], texts: list[str]
) -> None:
    tokens = symbols.split()
    data = train_yaml(output_dim=len(tokens))
    data["tokenizer_conf"]["special_tokens"] = special
    folder = tmp_path / "exp"
    write_experiment(folder, data)
    (folder / "units.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)))
    said = load_experiment(folder).notes
    assert bool(said) == bool(texts), said
    assert all(any(text in line for line in said) for text in texts), said


def test_untrained_parts_are_told_of(experiment: Path) -> None:
    for weight, text in ((0, "CTC was not trained"), (1.0, "decode with --no-rescoring")):
        rewrite(experiment, model_conf={"ctc_weight": weight})
        assert text in notes_of(experiment)


def test_features_of_the_tiny_experiment_are_enough() -> None:
    """The helpers' own experiment raises no notes: what is told of above is told for a reason."""
    said: list[str] = []
    config = from_wenet(train_yaml(), say=said.append)
    assert not said and len(random_state(config)) > 100 and features(10).shape == (1, 10, MEL)
