"""What WeNet wrote into ``train.yaml`` at other times, and for other models, as the names of today.

Versions 0.1 to 3.1 and main differ in where a setting is and in what a module does with it. ``modern`` gives
``edge.model.train_yaml`` one spelling to read; what would change the result is kept or refused by name, never dropped.
Sources: ``wenet/utils/init_model.py``, ``wenet/transformer/encoder.py`` and ``wenet/dataset/dataset.py`` of the tags
v1.0.0, v2.0.0, v2.2.1, v3.1.0 and of main.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edge.model.settings import ConfigError, section, typed
from edge.system.console import Say, silent

HALVED = ("transducer", "paraformer")
"""Kinds of which only the half with CTC and attention is built here."""

_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_list")  # of encoder_conf in v3.1


def modern(data: dict[str, Any], keys: Collection[str] = (), say: Say = silent) -> dict[str, Any]:
    """``data`` in today's spelling; the original is left as it is.

    Args:
        data: a parsed train.yaml.
        keys: of the checkpoint, () when it is not at hand. They decide where train.yaml is ambiguous.
        say: called with a line per thing a user should know.

    Raises:
        ConfigError: a model or setting that this project does not build, by name.
    """
    data = dict(data)
    for name in ("encoder_conf", "decoder_conf", "model_conf"):
        data[name] = dict(section(data, name))
    _model(data, keys, say)
    _encoder(data, keys)
    for name in ("encoder_conf", "decoder_conf"):
        _heads(data, name)
    _training(data, say)
    return data


def kind_of(data: dict[str, Any]) -> str:
    """The model's kind under today's name; v2 had no ``model:`` and went by what else is there."""
    if data.get("model") is not None:
        return str(data["model"])
    if data.get("paraformer"):
        return "paraformer"
    return "transducer" if "predictor" in data or "joint" in data else "asr_model"


def _model(data: dict[str, Any], keys: Collection[str], say: Say) -> None:
    kind = kind_of(data)
    if kind == "k2_model":  # the same model; the LF-MMI loss adds nothing to it
        kind = "asr_model"
    if kind in HALVED:
        _ctc_half(data, kind, keys, say)
        kind = "asr_model"
    data["model"] = kind


def _ctc_half(data: dict[str, Any], kind: str, keys: Collection[str], say: Say) -> None:
    """Keep CTC and, where it is complete and was trained, attention; refuse what has no CTC."""
    conf = data["model_conf"]
    ctc = _weight(conf, "ctc_weight", 0.0 if kind == "transducer" else 0.5)
    if keys and "ctc.ctc_lo.weight" not in keys:
        raise ConfigError(
            f"train.yaml: model: a {kind} without CTC is not supported; its {kind} half is not built here and it has "
            "no ctc.ctc_lo.weight; supported: asr_model, and others with CTC"
        )
    if ctc == 0:
        raise ConfigError(
            f"train.yaml: model_conf.ctc_weight: this {kind} was trained without CTC (0), and its {kind} half is not "
            "built here; supported: models trained with CTC"
        )
    attention = data.get("decoder", "bitransformer") is not None and complete_decoder(keys)
    if kind == "transducer" and attention:
        left = 1.0 - _weight(conf, "transducer_weight", 1.0) - ctc
        attention = _weight(conf, "attention_weight", left) > 1e-6
    if not attention:
        data["decoder"], data["decoder_conf"] = None, {}
    half = "CTC and the attention decoder" if attention else "CTC (it has no trained autoregressive decoder)"
    say(f"train.yaml: a {kind}; converted is its half with {half}")


def _weight(conf: dict[str, Any], name: str, default: float) -> float:
    return float(typed(conf.get(name, default), default, f"model_conf.{name}"))


def complete_decoder(keys: Collection[str]) -> bool:
    """Whether the checkpoint holds an autoregressive attention decoder; True when its keys are not at hand."""
    sides = ("decoder.", "decoder.left_decoder.")
    return not keys or any(f"{s}embed.0.weight" in keys or f"{s}output_layer.weight" in keys for s in sides)


def _encoder(data: dict[str, Any], keys: Collection[str]) -> None:
    conf = data["encoder_conf"]
    for name in _LORA:
        conf.pop(name, None)  # edge.model.lora reads them
    chunk = conf.get("static_chunk_size")
    if isinstance(chunk, int) and not isinstance(chunk, bool) and chunk < 0:
        conf["static_chunk_size"] = 0  # WeNet asks for > 0 only
    if data.get("encoder", "conformer") != "conformer" or not keys:
        return
    # v0 to v2.2 named the attention in train.yaml and built another one, by pos_enc_layer_type; v3 builds the named
    # one. Only the relative one has a projection of positions, so the checkpoint tells.
    relative = any(key.endswith(".self_attn.linear_pos.weight") for key in keys)
    named = conf.get("selfattention_layer_type", "rel_selfattn")
    if named in ("selfattn", "rel_selfattn") and any(".self_attn." in key for key in keys):
        conf["selfattention_layer_type"] = "rel_selfattn" if relative else "selfattn"


def _heads(data: dict[str, Any], name: str) -> None:
    """``n_kv_head`` and ``head_dim`` at the values that plain multi-head attention has."""
    conf = data[name]
    heads = conf.get("attention_heads", 4)
    size = data["encoder_conf"].get("output_size", 256)
    if conf.get("n_kv_head") == heads:
        del conf["n_kv_head"]
    plain = all(isinstance(value, int) for value in (heads, size, conf.get("head_dim")))
    if plain and conf["head_dim"] * heads == size:
        del conf["head_dim"]


def _training(data: dict[str, Any], say: Say) -> None:
    """Losses that were off, so that a part of the model is what it was initialized with."""
    weight = data["model_conf"].get("ctc_weight", 0.5)
    if weight == 0:
        say(
            "train.yaml: model_conf.ctc_weight is 0: CTC was not trained, and every text here begins with CTC; expect "
            "no useful text"
        )
    elif weight == 1 and data.get("decoder", "bitransformer") is not None:
        say("train.yaml: model_conf.ctc_weight is 1: the attention decoder was not trained; decode with --no-rescoring")
