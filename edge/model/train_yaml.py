"""Reads the ``train.yaml`` of a WeNet experiment into ``edge.model.config``.

Names and defaults are WeNet's (``wenet/models/transformer/encoder.py``, ``decoder.py``, ``wenet/utils/init_model.py``).
What the project does not build is refused here, by name, before any weight is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from edge.model.ages import modern
from edge.model.config import DecoderConfig, EncoderConfig, LossConfig, ModelConfig
from edge.model.feature_settings import features
from edge.model.settings import ConfigError, check_range, section, show, typed
from edge.runtime.manifest import SUBSAMPLING
from edge.system.console import Say, silent

_CHOICES = {
    "encoder": ("conformer", "transformer"),
    "decoder": ("bitransformer", "transformer"),
    "model": ("asr_model",),
    "input_layer": tuple(SUBSAMPLING),
    "pos_enc_layer_type": ("rel_pos", "abs_pos", "no_pos"),
    "selfattention_layer_type": ("rel_selfattn", "selfattn"),
    "activation_type": ("swish", "relu", "gelu", "tanh", "hardtanh", "selu"),
    "cnn_module_norm": ("layer_norm", "batch_norm"),
    "mlp_type": ("position_wise_feed_forward", "moe"),
    "layer_norm_type": ("layer_norm",),
}

# Settings that change nothing at inference, or nothing in the weights' layout.
_IGNORED_ENCODER = {"gradient_checkpointing", "use_sdpa", "positionwise_conv_kernel_size", "concat_after"}
_IGNORED_DECODER = {"gradient_checkpointing", "use_sdpa", "concat_after", "tie_word_embedding"}
# Settings understood only at the value on the right.
_FIXED = {
    "n_kv_head": None,
    "head_dim": None,
    "conv_inner_factor": 2,
    "concat_after": False,
    "positionwise_conv_kernel_size": 1,
    "src_attention": True,
    "use_output_layer": True,
}


def from_wenet(data: Any, keys: Collection[str] = (), say: Say = silent) -> ModelConfig:
    """A ModelConfig from the parsed ``train.yaml`` of a WeNet experiment of any age.

    Args:
        data: the parsed file.
        keys: of the checkpoint beside it, () when it is not at hand: where train.yaml is ambiguous, they decide.
        say: called with a line per thing a user should know.

    Raises:
        ConfigError: not a WeNet configuration, or a module or setting outside the supported ones.
    """
    if not isinstance(data, dict) or "encoder_conf" not in data:
        raise ConfigError(
            "train.yaml: expected a WeNet configuration with 'encoder_conf', found none; "
            "pass the experiment directory that holds train.yaml and final.pt"
        )
    data = modern(data, keys, say)
    kinds = {
        "encoder": data.get("encoder", "conformer"),
        "decoder": data.get("decoder", "bitransformer"),
        "model": data["model"],
    }
    for key, value in kinds.items():
        if key != "decoder" or value is not None:
            _check_choice(key, value, key)
    if data.get("ctc", "ctc") != "ctc":
        raise ConfigError(f"train.yaml: ctc: {show(data['ctc'])} is not supported; supported: ctc")
    for key in ("input_dim", "output_dim"):
        if not isinstance(data.get(key), int) or isinstance(data[key], bool):
            raise ConfigError(
                f"train.yaml: expected a positive integer {key!r}, found {show(data.get(key))}; "
                "use the train.yaml that WeNet wrote beside the checkpoint, not the recipe's conf"
            )
        check_range(key, data[key], key)
    encoder = _settings(EncoderConfig, data, "encoder_conf", _IGNORED_ENCODER, kind=kinds["encoder"])
    decoder = None
    if kinds["decoder"] is not None:
        decoder = _settings(DecoderConfig, data, "decoder_conf", _IGNORED_DECODER, kind=kinds["decoder"])
    if decoder is not None and encoder.output_size % decoder.attention_heads:
        raise ConfigError(
            f"train.yaml: encoder_conf.output_size {encoder.output_size} is not a multiple of "
            f"decoder_conf.attention_heads {decoder.attention_heads}"
        )
    if section(data, "model_conf").get("apply_non_blank_embedding"):
        raise ConfigError("train.yaml: model_conf.apply_non_blank_embedding: true is not supported")
    vocab = data["output_dim"]
    special = section(section(data, "tokenizer_conf"), "special_tokens", "tokenizer_conf.")
    config = ModelConfig(
        input_dim=data["input_dim"],
        vocab_size=vocab,
        encoder=encoder,
        decoder=decoder,
        loss=_settings(LossConfig, data, "model_conf", None),
        features=features(data, say),
        use_cmvn=data.get("cmvn") == "global_cmvn" or bool(data.get("cmvn_file")),
        blank=section(data, "ctc_conf").get("ctc_blank_id", 0),
        sos=special.get("<sos>", vocab - 1),
        eos=special.get("<eos>", vocab - 1),
    )
    for name in ("blank", "sos", "eos"):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab:
            raise ConfigError(f"train.yaml: special token {name} = {show(value)} is outside 0..{vocab - 1}")
    if config.features.num_mel_bins != config.input_dim:
        raise ConfigError(
            f"train.yaml: input_dim {config.input_dim} differs from "
            f"fbank_conf.num_mel_bins {config.features.num_mel_bins}"
        )
    if config.input_dim <= encoder.right_context:
        # The same convolutions run over time and mel bins, so both need as much.
        raise ConfigError(
            f"train.yaml: input_dim: {encoder.input_layer} needs at least {encoder.right_context + 1} "
            f"mel bins, found {config.input_dim}"
        )
    return config


def _check_choice(name: str, value: Any, where: str) -> None:
    if value not in _CHOICES[name]:
        raise ConfigError(
            f"train.yaml: {where}: {show(value)} is not supported; supported: {', '.join(_CHOICES[name])}"
        )


def _settings(cls: Any, data: dict[str, Any], name: str, ignored: set[str] | None, **values: Any) -> Any:
    """One ``*_conf`` section as ``cls``; every setting is understood, ``ignored`` (None: all others) or refused."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "kind"}
    for key, value in section(data, name).items():
        where = f"{name}.{key}"
        if key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError(f"train.yaml: {where}: {show(value)} is not supported; supported: {_FIXED[key]!r}")
            if key not in fields:
                continue
        if key not in fields:
            if ignored is None or key in ignored:
                continue
            raise ConfigError(f"train.yaml: {where}: unknown setting; supported: {', '.join(sorted(fields))}")
        if key in _CHOICES:
            _check_choice(key, value, where)
        values[key] = typed(value, fields[key].default, where)
        check_range(key, values[key], where)
    if cls is EncoderConfig and values["kind"] == "transformer":
        # WeNet's TransformerEncoder has other defaults than its ConformerEncoder, and no convolution.
        for key, value in {
            "pos_enc_layer_type": "abs_pos",
            "selfattention_layer_type": "selfattn",
            "activation_type": "relu",
        }.items():
            values.setdefault(key, value)
        values.update(macaron_style=False, use_cnn_module=False, causal=False)
        if values["selfattention_layer_type"] != "selfattn":
            raise ConfigError(
                "train.yaml: encoder_conf.selfattention_layer_type: a transformer encoder supports: selfattn"
            )
    config = cls(**values)
    if not isinstance(config, LossConfig):
        _check_sizes(config, name)
    return config


def _check_sizes(config: EncoderConfig | DecoderConfig, name: str) -> None:
    """Settings that must agree with each other."""
    if config.mlp_type == "moe" and not 0 < config.n_expert_activated <= config.n_expert:
        raise ConfigError(
            f"train.yaml: {name}: expected 0 < n_expert_activated <= n_expert, "
            f"found {config.n_expert_activated} and {config.n_expert}"
        )
    if isinstance(config, DecoderConfig):
        if config.input_layer != "embed":
            raise ConfigError(
                f"train.yaml: {name}.input_layer: {config.input_layer!r} is not supported; supported: embed"
            )
        if config.bidirectional and not (config.src_query_bias and config.src_key_bias and config.src_value_bias):
            raise ConfigError(
                f"train.yaml: {name}: src_*_bias: false needs decoder: transformer; WeNet's bitransformer "
                "does not know these settings"
            )
        return
    if config.output_size % config.attention_heads:
        raise ConfigError(
            f"train.yaml: {name}.output_size {config.output_size} is not a multiple of "
            f"attention_heads {config.attention_heads}"
        )
    if config.use_cnn_module and not config.causal:
        if config.cnn_module_kernel % 2 == 0:
            raise ConfigError(
                f"train.yaml: {name}.cnn_module_kernel: {config.cnn_module_kernel} is even; "
                "a convolution that is not causal needs an odd kernel"
            )
        if config.static_chunk_size > 0 and not config.use_dynamic_chunk:
            raise ConfigError(
                f"train.yaml: {name}: static_chunk_size {config.static_chunk_size} without causal: true "
                "is not supported: such a model knows neither full context nor streaming"
            )
