"""Models and settings of every WeNet age: an ordinary experiment, rewritten as another version would have left it.

What is expected comes from the ordinary experiment, or from torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from model_helpers import (
    assert_same_weights,
    notes_of,
    refusal,
    rewrite,
    state_of,
    train_yaml,
    write_experiment,
)
from torch import Tensor

from edge.export.convert import convert
from edge.model.checkpoint import CheckpointError, ConfigError, load_experiment
from edge.runtime import DecodeOptions, Recognizer

State = dict[str, Tensor]
D = 16  # encoder_conf.output_size of the tiny experiment


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
    assert_same_weights(experiment, pristine)
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
    "head_dim null": {"encoder_conf": {"n_kv_head": None, "head_dim": None}},
    "concat_after false": {"encoder_conf": {"concat_after": False}, "decoder_conf": {"concat_after": False}},
}


@pytest.mark.parametrize("settings", HARMLESS.values(), ids=HARMLESS)
def test_harmless_settings(pristine: Path, experiment: Path, settings: dict[str, Any]) -> None:
    rewrite(experiment, **settings)
    assert_same_weights(experiment, pristine)
    assert load_experiment(experiment).config == load_experiment(pristine).config


def test_settings_that_are_not_harmless(experiment: Path) -> None:
    rewrite(experiment, encoder_conf={"n_kv_head": 1, "head_dim": 8})
    assert "encoder_conf.n_kv_head: 1 is not supported" in refusal(experiment, ConfigError)
    rewrite(experiment, model="transducer", model_conf={"ctc_weight": 0.3, "transducer_weight": "most"})
    assert "model_conf.transducer_weight: expected float, found 'most'" in refusal(experiment, ConfigError)
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
    assert_same_weights(experiment, pristine)
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
