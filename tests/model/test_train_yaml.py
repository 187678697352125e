"""Reading train.yaml: older forms are understood, what the project does not build is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_helpers import refusal, train_yaml

from edge.model.checkpoint import load_experiment
from edge.model.train_yaml import ConfigError
from edge.runtime.errors import EdgeError


def edit_yaml(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = yaml.safe_load((folder / "train.yaml").read_text())
    change(data)
    (folder / "train.yaml").write_text(yaml.safe_dump(data))


def test_an_old_train_yaml(make_experiment: Callable[..., Path]) -> None:
    """Before special_tokens and cmvn_conf: the last unit is sos and eos, the dictionary has another name."""
    settings = {"tokenizer_conf": {}, "cmvn": None, "cmvn_conf": None, "cmvn_file": "data/train/global_cmvn"}
    folder = make_experiment(**settings, symbol_table="data/dict/lang_char.txt", encoder_conf={"concat_after": False})
    (folder / "units.txt").rename(folder / "lang_char.txt")
    found = load_experiment(folder)
    assert found.config.use_cmvn and (found.config.sos, found.config.eos) == (11, 11)


def test_sos_and_eos_may_differ(experiment: Path) -> None:
    edit_yaml(experiment, lambda y: y["tokenizer_conf"]["special_tokens"].update({"<sos>": 5, "<eos>": 6}))
    config = load_experiment(experiment).config
    assert (config.sos, config.eos) == (5, 6)


WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"encoder": "squeezeformer"}, "encoder: 'squeezeformer' is not supported; supported: conformer, transformer"),
    ({"model": "whisper"}, "model: 'whisper' is not supported; supported: asr_model"),
    ({"decoder": "sanm_decoder"}, "decoder: 'sanm_decoder' is not supported; supported: bitransformer, transformer"),
    ({"ctc": "ctl"}, "ctc: 'ctl' is not supported"),
    ({"model_conf": {"apply_non_blank_embedding": True}}, "model_conf.apply_non_blank_embedding"),
    ({"encoder_conf": {"mlp_type": "gated"}}, "encoder_conf.mlp_type: 'gated' is not supported"),
    ({"decoder_conf": {"mlp_type": "gated"}}, "decoder_conf.mlp_type: 'gated' is not supported"),
    ({"encoder_conf": {"layer_norm_type": "rms_norm"}}, "encoder_conf.layer_norm_type: 'rms_norm' is not supported"),
    ({"encoder_conf": {"input_layer": "linear"}}, "encoder_conf.input_layer: 'linear' is not supported"),
    ({"encoder_conf": {"pos_enc_layer_type": "rope_pos"}}, "'rope_pos' is not supported; supported: rel_pos, abs_pos"),
    ({"encoder_conf": {"n_kv_head": 1}}, "encoder_conf.n_kv_head: 1 is not supported; supported: None"),
    ({"encoder_conf": {"concat_after": True}}, "encoder_conf.concat_after: True is not supported; supported: False"),
    ({"encoder_conf": {"time_reduce": 2}}, "encoder_conf.time_reduce: unknown setting; supported: activation_type, "),
    ({"decoder_conf": {"input_layer": "linear"}}, "decoder_conf.input_layer: 'linear' is not supported"),
    ({"decoder_conf": {"src_key_bias": False}}, "src_*_bias: false needs decoder: transformer"),
    ({"encoder_conf": {"causal": "yes"}}, "encoder_conf.causal: expected bool, found 'yes'"),
    ({"encoder_conf": {"num_blocks": 2.0}}, "encoder_conf.num_blocks: expected int, found 2.0"),
    ({"encoder_conf": {"num_blocks": True}}, "encoder_conf.num_blocks: expected int, found True"),
    ({"encoder_conf": {"num_blocks": 0}}, "encoder_conf.num_blocks: expected 1 to 256, found 0"),
    ({"encoder_conf": {"num_blocks": 10**9}}, "encoder_conf.num_blocks: expected 1 to 256, found 1000000000"),
    ({"encoder_conf": {"output_size": -16}}, "encoder_conf.output_size: expected 1 to 16384, found -16"),
    ({"encoder_conf": {"attention_heads": 0}}, "encoder_conf.attention_heads: expected 1 to 512, found 0"),
    ({"encoder_conf": {"attention_heads": 3}}, "output_size 16 is not a multiple of attention_heads 3"),
    ({"decoder_conf": {"attention_heads": 3}}, "output_size 16 is not a multiple of decoder_conf.attention_heads 3"),
    ({"encoder_conf": {"n_expert_activated": 5}}, "0 < n_expert_activated <= n_expert, found 5 and 4"),
    ({"encoder_conf": {"n_expert_activated": 0}}, "0 < n_expert_activated <= n_expert, found 0 and 4"),
    ({"encoder_conf": {"dropout_rate": float("nan")}}, "encoder_conf.dropout_rate: expected float, found nan"),
    ({"encoder_conf": {"dropout_rate": 7}}, "encoder_conf.dropout_rate: expected 0 to 1, found 7.0"),
    ({"encoder_conf": {"norm_eps": 0.0}}, "encoder_conf.norm_eps: expected 1e-20 to 1, found 0.0"),
    ({"encoder_conf": {"causal": False, "cnn_module_kernel": 8}}, "cnn_module_kernel: 8 is even"),
    (
        {"encoder_conf": {"causal": False, "use_dynamic_chunk": False, "static_chunk_size": 8}},
        "static_chunk_size 8 without causal: true is not supported",
    ),
    ({"encoder": "transformer", "encoder_conf": {"selfattention_layer_type": "rel_selfattn"}}, "supports: selfattn"),
    ({"output_dim": 0}, "output_dim: expected 1 to 1048576, found 0"),
    ({"output_dim": "12"}, "expected a positive integer 'output_dim', found '12'; use the train.yaml that WeNet wrote"),
    ({"input_dim": None}, "expected a positive integer 'input_dim', found None"),
    ({"input_dim": 80}, "input_dim 80 differs from fbank_conf.num_mel_bins 20"),
    ({"input_dim": 6, "dataset_conf": {}}, "input_dim: conv2d needs at least 7 mel bins, found 6"),
    ({"encoder_conf": {"input_layer": "conv2d8"}, "input_dim": 14, "dataset_conf": {}}, "needs at least 15 mel bins"),
    ({"model_conf": [1]}, "model_conf: expected a mapping, found [1]"),
    ({"tokenizer_conf": "x"}, "tokenizer_conf: expected a mapping, found 'x'"),
    ({"tokenizer_conf": {"special_tokens": {"<sos>": 12}}}, "special token sos = 12 is outside 0..11"),
    ({"ctc_conf": {"ctc_blank_id": -1}}, "special token blank = -1 is outside 0..11"),
    ({"model_conf": {"reverse_weight": "much"}}, "model_conf.reverse_weight: expected float, found 'much'"),
    ({"dataset_conf": {"feats_type": "mfcc"}}, "dataset_conf.feats_type: 'mfcc' is not supported; supported: fbank"),
    ({"dataset_conf": {"fbank_conf": {"frame_shift": 0}}}, "dataset_conf.fbank_conf.frame_shift: expected 1 to 100"),
    ({"dataset_conf": {"fbank_conf": {"window_type": "kaiser"}}}, "window_type: 'kaiser' is not supported"),
    ({"dataset_conf": {"resample_conf": {"resample_rate": 1}}}, "resample_rate: expected 4000 to 384000, found 1"),
]


def test_wrong_settings(experiment: Path) -> None:
    """One folder, one setting after the other."""
    for settings, text in WRONG_SETTINGS:
        (experiment / "train.yaml").write_text(yaml.safe_dump(train_yaml(**settings)))
        message = refusal(experiment, ConfigError)
        assert text in message, message
        assert len(message) < 700


NOT_SETTINGS: dict[str, tuple[bytes, str]] = {
    "list": (b"- 1\n- 2\n", "train.yaml: expected a WeNet configuration with 'encoder_conf', found none"),
    "empty": (b"", "train.yaml: expected a WeNet configuration with 'encoder_conf', found none"),
    "syntax": (b"a: 1\nb:\n\t- c\n", "train.yaml:3: not plain YAML: found character '\\t'"),
    "date": (b"a: 2024-13-45", "train.yaml: not plain YAML: month must be in 1..12"),
    "nesting": (b"[" * 100_000, "train.yaml: not plain YAML: maximum recursion depth exceeded"),
    "bytes": (b"a: \xff", "train.yaml: expected UTF-8 text, found other bytes"),
}


@pytest.mark.parametrize(("data", "text"), NOT_SETTINGS.values(), ids=NOT_SETTINGS)
def test_files_that_are_not_settings(experiment: Path, data: bytes, text: str) -> None:
    (experiment / "train.yaml").write_bytes(data)
    assert text in refusal(experiment, EdgeError)


def test_yaml_cannot_run_code(experiment: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = experiment / "train.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir [{mark}]\n")
    yaml.unsafe_load(path.read_text())
    assert mark.exists()  # the attack works when nobody stops it
    mark.rmdir()
    refusal(experiment, ConfigError)  # as text it is no configuration
    assert not mark.exists()


def test_huge_values_do_not_hang_or_flood(experiment: Path) -> None:
    """An alias bomb of 9**11 entries, and an integer Python refuses to print."""
    path = experiment / "train.yaml"
    good = path.read_text()
    assert "mlp_type: moe" in good and "num_blocks: 2" in good
    names = "abcdefghijkl"
    bomb = 'a: &a ["x", "x", "x", "x", "x", "x", "x", "x", "x"]\n'
    bomb += "".join(f"{n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in zip(names, names[1:], strict=False))
    path.write_text(bomb + good.replace("mlp_type: moe", "mlp_type: *l"))
    assert len(refusal(experiment, ConfigError)) < 1000
    path.write_text(good.replace("num_blocks: 2", "num_blocks: 0x" + "f" * 9000))
    assert "num_blocks: expected 1 to 256, found a number of 36000 bits" in refusal(experiment, ConfigError)
