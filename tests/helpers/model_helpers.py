"""Tiny WeNet experiments with random weights: for the tests of the model, the loader, conversion and command line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from edge.model.checkpoint import load_experiment
from edge.model.config import ModelConfig
from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from edge.runtime.errors import EdgeError

MEL = 20
_TINY: dict[str, Any] = {
    "input_dim": MEL,
    "output_dim": 12,
    "encoder": "conformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 24,
        "num_blocks": 2,
        "cnn_module_kernel": 5,
        "cnn_module_norm": "layer_norm",
        "causal": True,
        "use_dynamic_chunk": True,
        "mlp_type": "moe",
        "n_expert": 4,
        "n_expert_activated": 2,
    },
    "decoder": "bitransformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 24, "num_blocks": 1, "r_num_blocks": 1},
    "tokenizer": "char",
    "tokenizer_conf": {
        "symbol_table_path": "data/dict/units.txt",
        "special_tokens": {"<blank>": 0, "<unk>": 1, "<sos>": 2, "<eos>": 2},
    },
    "ctc": "ctc",
    "ctc_conf": {"ctc_blank_id": 0},
    "cmvn": "global_cmvn",
    "cmvn_conf": {"cmvn_file": "data/train/global_cmvn", "is_json_cmvn": True},
    "model": "asr_model",
    "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1, "reverse_weight": 0.3},
    "dataset_conf": {"fbank_conf": {"num_mel_bins": MEL, "frame_shift": 10, "frame_length": 25}},
}


def train_yaml(**settings: Any) -> dict[str, Any]:
    """A streaming MoE model of 2 + 1 + 1 blocks. ``encoder_conf`` and ``decoder_conf`` change single settings of their
    sections; any other argument replaces a top-level one."""
    data = copy.deepcopy(_TINY)
    for name, value in settings.items():
        if name in ("encoder_conf", "decoder_conf"):
            data[name].update(value)
        else:
            data[name] = value
    if data["encoder"] == "transformer":
        for name in ("cnn_module_kernel", "cnn_module_norm", "causal"):
            data["encoder_conf"].pop(name, None)
    if data["decoder"] == "transformer":
        data["decoder_conf"].pop("r_num_blocks", None)
    return data


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under WeNet's names: no scale is trivial, and neither routers nor CTC are near a tie."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in U2pp(config).state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith((".pe", ".num_batches_tracked")):
            continue
        if key.endswith((".istd", ".running_var")):
            state[key] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.ndim > 1:
            gain = 4.0 if ".gate." in key or "ctc_lo" in key else 1.0
            state[key] = noise * gain / value[0].numel() ** 0.5
        else:
            norm = "norm" in key and key.endswith(".weight")
            state[key] = 0.3 * noise + (1.0 if norm else 0.0)
    return state


def random_model(data: dict[str, Any], seed: int = 0) -> U2pp:
    """The model of a train.yaml, in eval mode."""
    config = from_wenet(data)
    model = U2pp(config).eval()
    missing, surplus = model.load_state_dict(random_state(config, seed), strict=False)
    assert not surplus and all(key.endswith((".pe", ".num_batches_tracked")) for key in missing)
    return model


def units(size: int) -> str:
    """``units.txt`` as WeNet's recipes write it."""
    tokens = ["<blank>", "<unk>", "<sos/eos>", "▁"] + [chr(ord("a") + i) for i in range(size - 4)]
    return "".join(f"{token} {index}\n" for index, token in enumerate(tokens[:size]))


def cmvn_json(state: dict[str, Tensor], frames: int = 1000) -> str:
    """The statistics that give the state's mean and inverse standard deviation."""
    mean, istd = state["encoder.global_cmvn.mean"].double(), state["encoder.global_cmvn.istd"].double()
    square = (1.0 / istd**2 + mean**2) * frames
    return json.dumps({"mean_stat": (mean * frames).tolist(), "var_stat": square.tolist(), "frame_num": frames})


def write_experiment(folder: Path, data: dict[str, Any], seed: int = 0) -> Path:
    """``folder`` as WeNet leaves an experiment: train.yaml, final.pt, units.txt, global_cmvn."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state(from_wenet(data), seed)
    (folder / "train.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (folder / "units.txt").write_text(units(data["output_dim"]), encoding="utf-8")
    if "encoder.global_cmvn.mean" in state:
        (folder / "global_cmvn").write_text(cmvn_json(state), encoding="utf-8")
    torch.save(state, folder / "final.pt")
    return folder


def features(frames: int, seed: int = 0) -> Tensor:
    """(1, frames, MEL): smooth in time, so that neighbouring frames differ as speech does."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(frames + 4, MEL, generator=generator)
    return 2.0 * noise.unfold(0, 5, 1).mean(-1)[None]


def refusal(path: Path, kind: type[EdgeError]) -> str:
    """The message of the error, which is one line and names the file or setting at fault."""
    with pytest.raises(kind) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert message == message.strip() and message.isprintable(), message
    assert "train.yaml: " in message or str(path.parent) in message, message
    return message


def state_of(folder: Path) -> dict[str, Tensor]:
    """The weights of an experiment, as they are in its file."""
    state: dict[str, Tensor] = torch.load(folder / "final.pt", weights_only=True)
    return state


def assert_same_weights(one: Path, other: Path) -> None:
    """Both load, to the same keys and numbers."""
    a, b = load_experiment(one).weights, load_experiment(other).weights
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=0, rtol=0)


def rewrite(folder: Path, **settings: Any) -> dict[str, Any]:
    """Give an experiment another train.yaml (see :func:`train_yaml`), and return it."""
    data = train_yaml(**settings)
    (folder / "train.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return data


def notes_of(folder: Path) -> str:
    """What the loader says of an experiment."""
    return "\n".join(load_experiment(folder).notes)
