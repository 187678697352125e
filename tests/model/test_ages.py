"""Experiments of every WeNet age and wrapper: each is an ordinary one, rewritten as another version would have left it.

What is expected comes from the ordinary experiment: the same weights, or a closed form of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from model_helpers import MEL, features, random_state, refusal, train_yaml, units, write_experiment
from torch import Tensor

from edge.export.convert import convert
from edge.model.checkpoint import CheckpointError, ConfigError, load_experiment
from edge.model.train_yaml import from_wenet
from edge.runtime import DecodeOptions, Recognizer

State = dict[str, Tensor]
D = 16  # encoder_conf.output_size of the tiny experiment


def state_of(folder: Path) -> State:
    state: State = torch.load(folder / "final.pt", weights_only=True)
    return state


def same_weights(one: Path, other: Path) -> None:
    a, b = load_experiment(one).weights, load_experiment(other).weights
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=0, rtol=0)


def rewrite(folder: Path, **settings: Any) -> dict[str, Any]:
    data = train_yaml(**settings)
    (folder / "train.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return data


def notes_of(folder: Path) -> str:
    return "\n".join(load_experiment(folder).notes)


# Weights


def with_concat(state: State) -> State:
    """What versions before May 2022 created in every layer."""
    extra = {}
    for key in list(state):
        layer, _, rest = key.partition(".norm1.weight")
        if rest or ".norm1.weight" not in key or "decoders." not in key:
            continue
        for number in (1, 2):
            extra[f"{layer}.concat_linear{number}.weight"] = torch.randn(D, 2 * D)
            extra[f"{layer}.concat_linear{number}.bias"] = torch.randn(D)
    for block in range(2):
        extra[f"encoder.encoders.{block}.concat_linear.weight"] = torch.randn(D, 2 * D)
        extra[f"encoder.encoders.{block}.concat_linear.bias"] = torch.randn(D)
    assert len(extra) == 12
    return state | extra


WRAPPED: dict[str, Callable[[State], Any]] = {
    "concat_linear of every layer": with_concat,
    "torch.compile": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "compiled encoder": lambda s: {
        k.replace("encoder.", "encoder._orig_mod.", 1) if k.startswith("encoder.") else k: v for k, v in s.items()
    },
    "DataParallel of a compiled model": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()},
        "optimizer_states": [],
        "epoch": 3,
        "pytorch-lightning_version": "2.2",
    },
    "another single key": lambda s: {"net": s, "step": 1000},
    "beside an optimizer": lambda s: {
        "weights": s,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"step": 3},
    },
    "two deep": lambda s: {"checkpoint": {"model": s, "args": None}},
    "average of checkpoints": lambda s: {
        "n_averaged": torch.tensor(30),
        **{f"module.{k}": v for k, v in s.items()},
    },
    "numbers beside the weights": lambda s: {**s, "epoch": 3, "step": torch.tensor([7]), "tag": "final"},
}


@pytest.mark.parametrize("change", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights(pristine: Path, experiment: Path, change: Callable[[State], Any]) -> None:
    torch.save(change(state_of(pristine)), experiment / "final.pt")
    same_weights(experiment, pristine)


def test_two_sets_of_weights_are_not_guessed_between(experiment: Path) -> None:
    state = state_of(experiment)
    torch.save({"generator": state, "teacher": state}, experiment / "final.pt")
    assert "found 2: 'generator', 'teacher'" in refusal(experiment, CheckpointError)


def test_a_projection_that_was_used_is_refused(experiment: Path) -> None:
    torch.save(with_concat(state_of(experiment)), experiment / "final.pt")
    rewrite(experiment, encoder_conf={"concat_after": True})
    assert "encoder_conf.concat_after: True is not supported" in refusal(experiment, ConfigError)
    rewrite(experiment, decoder_conf={"concat_after": True})
    assert "decoder_conf.concat_after: True is not supported" in refusal(experiment, ConfigError)


# LoRA

LORA_FORMS: dict[str, dict[str, Any]] = {
    "main": {"lora_conf": {"lora_modules": ["encoder.encoders"], "lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.1}},
    "v3.1": {"encoder_conf": {"lora_rank": 3, "lora_alpha": 6, "lora_dropout": 0.0, "lora_list": ["q", "o"]}},
}


def lora_of(state: State, seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for block in range(2):
        for name in ("linear_q", "linear_out"):
            layer = f"encoder.encoders.{block}.self_attn.{name}"
            found[f"{layer}.lora_A"] = torch.randn(3, D, generator=generator)
            found[f"{layer}.lora_B"] = torch.randn(D, 3, generator=generator)
    return found


@pytest.mark.parametrize("settings", LORA_FORMS.values(), ids=LORA_FORMS)
def test_lora_is_merged(pristine: Path, experiment: Path, settings: dict[str, Any]) -> None:
    """x W' + alpha / r x A' B', as WeNet's layer computes it while it is not merged."""
    base, lora = state_of(pristine), lora_of(state_of(pristine))
    torch.save(base | lora, experiment / "final.pt")
    rewrite(experiment, **settings)
    found = load_experiment(experiment)
    x = torch.randn(5, D)
    for layer in {key.rsplit(".", 1)[0] for key in lora}:
        want = x @ base[f"{layer}.weight"].T + x @ lora[f"{layer}.lora_A"].T @ lora[f"{layer}.lora_B"].T * (6 / 3)
        torch.testing.assert_close(x @ found.weights[f"{layer}.weight"].T, want, atol=1e-5, rtol=1e-5)
        assert not torch.equal(found.weights[f"{layer}.weight"], base[f"{layer}.weight"])
    assert not any("lora" in key for key in found.weights)
    assert "LoRA of 4 layers merged (alpha 6, rank 3)" in notes_of(experiment)


def test_lora_that_cannot_be_merged(pristine: Path, experiment: Path) -> None:
    base, lora = state_of(pristine), lora_of(state_of(pristine))
    torch.save(base | lora, experiment / "final.pt")
    assert "lora_conf.lora_alpha: expected a number, found none" in refusal(experiment, ConfigError)
    rewrite(experiment, lora_conf={"lora_rank": 4, "lora_alpha": 6})
    assert "lora_rank: expected 3 as final.pt has, found 4" in refusal(experiment, ConfigError)
    rewrite(experiment, **LORA_FORMS["main"])
    torch.save(lora, experiment / "final.pt")
    assert "holds the LoRA weights of 4 layers and not the model" in refusal(experiment, CheckpointError)
    lora.popitem()
    torch.save(base | lora, experiment / "final.pt")
    assert "of its LoRA" in refusal(experiment, CheckpointError)


def test_settings_of_lora_without_its_weights(pristine: Path, experiment: Path) -> None:
    for settings in LORA_FORMS.values():
        rewrite(experiment, **settings)
        same_weights(experiment, pristine)
    rewrite(experiment, use_lora=True, **LORA_FORMS["main"])
    assert "taken as merged already" in notes_of(experiment)


# Tied embeddings


@pytest.mark.parametrize("kind", ["bitransformer", "transformer"])
@pytest.mark.parametrize("left_out", ["output_layer.weight", "embed.0.weight"])
def test_tied_embeddings(tmp_path: Path, kind: str, left_out: str) -> None:
    data = train_yaml(decoder=kind, decoder_conf={"tie_word_embedding": True})
    folder = write_experiment(tmp_path / "exp", data)
    state = state_of(folder)
    kept = "embed.0.weight" if left_out == "output_layer.weight" else "output_layer.weight"
    torch.save({k: v for k, v in state.items() if not k.endswith(left_out)}, folder / "final.pt")
    found = load_experiment(folder).weights
    sides = ("decoder.",) if kind == "transformer" else ("decoder.left_decoder.", "decoder.right_decoder.")
    for side in sides:
        assert torch.equal(found[side + left_out], state[side + kept])
        assert torch.equal(found[side + kept], state[side + kept])


def test_an_embedding_that_is_not_tied_is_not_made_up(experiment: Path) -> None:
    state = state_of(experiment)
    torch.save({k: v for k, v in state.items() if not k.endswith("output_layer.weight")}, experiment / "final.pt")
    assert "missing key decoder.left_decoder.output_layer.weight" in refusal(experiment, CheckpointError)


# Models of other kinds


def other_half(state: State) -> State:
    return state | {
        "predictor.embed.weight": torch.zeros(12, 8),
        "predictor.rnn.weight_ih_l0": torch.zeros(32, 8),
        "joint.enc_ffn.weight": torch.zeros(8, D),
        "simple_am_proj.weight": torch.zeros(12, D),
    }


TRANSDUCERS: dict[str, dict[str, Any]] = {
    "main": {"model": "transducer", "predictor": "rnn", "joint": "transducer_joint"},
    "v2": {"predictor": "rnn", "predictor_conf": {"embed_size": 8}, "joint_conf": {"join_dim": 8}},
    "v2, joint alone": {"joint": "transducer_joint"},
    "paraformer": {"paraformer": True, "cif_predictor_conf": {"idim": D}},
}


@pytest.mark.parametrize("settings", TRANSDUCERS.values(), ids=TRANSDUCERS)
def test_half_of_a_transducer(pristine: Path, experiment: Path, settings: dict[str, Any]) -> None:
    torch.save(other_half(state_of(pristine)), experiment / "final.pt")
    weights = {"ctc_weight": 0.2, "reverse_weight": 0.3, "attention_weight": 0.15, "transducer_weight": 0.65}
    data = train_yaml(model_conf=weights, **settings)
    if "model" not in settings:
        del data["model"]
    (experiment / "train.yaml").write_text(yaml.safe_dump(data))
    same_weights(experiment, pristine)
    assert "its half with CTC and the attention decoder" in notes_of(experiment)


def test_half_of_a_transducer_without_attention(pristine: Path, experiment: Path) -> None:
    """Its decoder was never trained: default weights of WeNet's Transducer, 1.0 - 0.3 for the transducer alone."""
    torch.save(other_half(state_of(pristine)), experiment / "final.pt")
    data = rewrite(experiment, model="transducer", model_conf={"ctc_weight": 0.3, "transducer_weight": 0.7})
    found = load_experiment(experiment)
    assert found.config.decoder is None and not any(key.startswith("decoder.") for key in found.weights)
    assert "its half with CTC (it has no trained autoregressive decoder)" in notes_of(experiment)
    data["model_conf"] = {"transducer_weight": 1.0}
    (experiment / "train.yaml").write_text(yaml.safe_dump(data))
    assert "this transducer was trained without CTC" in refusal(experiment, ConfigError)
    state = {k: v for k, v in state_of(pristine).items() if not k.startswith("ctc.")}
    torch.save(other_half(state), experiment / "final.pt")
    rewrite(experiment, model="transducer", model_conf={"ctc_weight": 0.3})
    assert "a transducer without CTC is not supported" in refusal(experiment, ConfigError)


def test_an_ordinary_model_with_a_predictor_left_over_is_not_silently_cut(experiment: Path) -> None:
    torch.save(other_half(state_of(experiment)), experiment / "final.pt")
    assert "surplus key 'predictor.embed.weight'" in refusal(experiment, CheckpointError)


# Settings

HARMLESS: dict[str, dict[str, Any]] = {
    "k2_model": {"model": "k2_model"},
    "static_chunk_size -1": {"encoder_conf": {"static_chunk_size": -1}},
    "n_kv_head": {"encoder_conf": {"n_kv_head": 2, "head_dim": 8}, "decoder_conf": {"n_kv_head": 2, "head_dim": 8}},
    "concat_after false": {"encoder_conf": {"concat_after": False}, "decoder_conf": {"concat_after": False}},
}


@pytest.mark.parametrize("settings", HARMLESS.values(), ids=HARMLESS)
def test_harmless_settings(pristine: Path, experiment: Path, settings: dict[str, Any]) -> None:
    rewrite(experiment, **settings)
    same_weights(experiment, pristine)
    assert load_experiment(experiment).config == load_experiment(pristine).config


def test_settings_that_are_not_harmless(experiment: Path) -> None:
    rewrite(experiment, encoder_conf={"n_kv_head": 1, "head_dim": 8})
    assert "encoder_conf.n_kv_head: 1 is not supported" in refusal(experiment, ConfigError)
    rewrite(experiment, encoder_conf={"head_dim": 32})
    assert "encoder_conf.head_dim: 32 is not supported" in refusal(experiment, ConfigError)


@pytest.mark.parametrize("positions", ["abs_pos", "no_pos", "rel_pos"])
@pytest.mark.parametrize("attention", ["selfattn", "rel_selfattn"])
def test_attention_follows_the_checkpoint(tmp_path: Path, positions: str, attention: str) -> None:
    """v0 to v2 wrote rel_selfattn whatever they built; the graphs compute what torch computes for each pair."""
    data = train_yaml(encoder_conf={"pos_enc_layer_type": positions, "selfattention_layer_type": attention})
    folder = write_experiment(tmp_path / "exp", data)
    data["encoder_conf"]["selfattention_layer_type"] = "rel_selfattn"
    (folder / "train.yaml").write_text(yaml.safe_dump(data))
    found = load_experiment(folder)
    assert found.config.encoder.selfattention_layer_type == attention
    bundle = convert(folder, tmp_path / "bundle")  # compares with torch, in chunks and at once
    assert max(bundle.manifest.parity.values()) < 1e-3


def test_no_positions_are_no_positions(tmp_path: Path) -> None:
    """Without positions, convolution and padding, a permutation of frames is a permutation of the output."""
    data = train_yaml(
        encoder_conf={
            "pos_enc_layer_type": "no_pos",
            "selfattention_layer_type": "selfattn",
            "use_cnn_module": False,
            "causal": False,
        }
    )
    model = load_experiment(write_experiment(tmp_path / "exp", data)).build().encoder
    x = torch.randn(1, 9, D)
    order = torch.randperm(9)
    embedded, positions = model.embed.pos_enc(x)
    assert torch.equal(embedded, x) and not positions.any()  # WeNet does not even scale by sqrt(D)
    with torch.inference_mode():
        y, permuted = x, x[:, order]
        for layer in model.encoders:
            y, _, _ = layer(y, None, positions, None, None, None)
            permuted, _, _ = layer(permuted, None, positions, None, None, None)
    torch.testing.assert_close(permuted, y[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "hardtanh", "selu"])
def test_activations(tmp_path: Path, activation: str) -> None:
    data = train_yaml(
        encoder_conf={"activation_type": activation}, decoder_conf={"activation_type": activation, "mlp_type": "moe"}
    )
    bundle = convert(write_experiment(tmp_path / "exp", data), tmp_path / "bundle")
    assert max(bundle.manifest.parity.values()) < 1e-3


def test_tags_that_nobody_needs(pristine: Path, experiment: Path, tmp_path: Path) -> None:
    text = (experiment / "train.yaml").read_text()
    mark = tmp_path / "ran"
    text += "optim_conf:\n  betas: !!python/tuple [0.9, 0.98]\n  lr: !!python/name:torch.float32 ''\n"
    text += f"scheduler: !!python/object/apply:os.mkdir ['{mark}']\n"
    (experiment / "train.yaml").write_text(text)
    same_weights(experiment, pristine)
    assert not mark.exists()
    (experiment / "train.yaml").write_text(text.replace("num_blocks: 2", "num_blocks: !!python/name:os.path ''"))
    assert "encoder_conf.num_blocks: expected int, found 'tag:yaml.org" in refusal(experiment, ConfigError)


# CTC only


@pytest.fixture(scope="module")
def ctc_only(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An experiment without decoder, and the same encoder and CTC with one."""
    folder = tmp_path_factory.mktemp("ctc")
    whole = write_experiment(folder / "whole", train_yaml())
    data = train_yaml()
    data["decoder"] = None
    data["model_conf"] = {"ctc_weight": 1.0}
    del data["decoder_conf"]
    shutil.copytree(whole, folder / "alone")
    (folder / "alone/train.yaml").write_text(yaml.safe_dump(data))
    state = {k: v for k, v in state_of(whole).items() if not k.startswith("decoder.")}
    torch.save(state, folder / "alone/final.pt")
    return whole, folder / "alone"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_ctc_only(ctc_only: tuple[Path, Path], tmp_path: Path, engine: str) -> None:
    from edge.runtime.engines.config import EngineConfig

    whole, alone = (convert(path, tmp_path / path.name) for path in ctc_only)
    assert alone.manifest.decoder is None and not (alone.directory / "decoder.onnx").exists()
    noise = (torch.randn(32000, generator=torch.Generator().manual_seed(0)) * 0.1).numpy()
    texts = []
    for bundle, options in ((whole, DecodeOptions(rescoring=False)), (alone, DecodeOptions())):
        recognizer = Recognizer.load(bundle.directory, EngineConfig(engine, threads=1))
        texts.append([r.text for r in recognizer.transcribe(noise, 16000, options)])
    assert texts[0] == texts[1] and texts[0][0]


def test_ctc_only_is_quantized_and_inspected(ctc_only: tuple[Path, Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from u2edge.cli import app

    out = tmp_path / "int8"
    command = ["quantize", str(ctc_only[1]), "-o", str(out), "--scheme", "dynamic"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["inspect", str(out)])
    assert shown.exit_code == 0 and "CTC only" in shown.output, shown.output


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
