"""Reads the ``train.yaml`` of a WeNet experiment into ``edge.model.config``.

Names and defaults are WeNet's (``wenet/models/transformer/encoder.py``, ``decoder.py``, ``wenet/utils/init_model.py``).
What the project does not build is refused here, by name, before any weight is touched.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from typing import Any

from edge.model.config import DecoderConfig, EncoderConfig, LossConfig, ModelConfig
from edge.runtime.errors import EdgeError
from edge.runtime.manifest import SUBSAMPLING, FeatureOptions

_CHOICES = {
    "encoder": ("conformer", "transformer"),
    "decoder": ("bitransformer", "transformer"),
    "model": ("asr_model",),
    "input_layer": tuple(SUBSAMPLING),
    "pos_enc_layer_type": ("rel_pos", "abs_pos"),
    "selfattention_layer_type": ("rel_selfattn", "selfattn"),
    "activation_type": ("swish", "relu", "gelu"),
    "cnn_module_norm": ("layer_norm", "batch_norm"),
    "mlp_type": ("position_wise_feed_forward", "moe"),
    "layer_norm_type": ("layer_norm",),
    "feats_type": ("fbank",),
    "window_type": ("povey", "hamming", "hanning", "rectangular"),
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
# Smallest and largest values. The largest are far beyond any model: a damaged or hostile file is refused before
# memory is asked for.
_RANGES: dict[str, tuple[float, float]] = {
    "input_dim": (1, 4096),
    "output_dim": (1, 1 << 20),
    "output_size": (1, 1 << 14),
    "linear_units": (1, 1 << 18),
    "attention_heads": (1, 512),
    "num_blocks": (1, 256),
    "r_num_blocks": (0, 256),
    "n_expert": (1, 256),
    "cnn_module_kernel": (1, 1024),
    "static_chunk_size": (0, 5000),
    "sample_rate": (4000, 384_000),
    "frame_length_ms": (1, 500),
    "frame_shift_ms": (1, 100),
}
_REPR = reprlib.Repr()
_REPR.maxlevel = 2


class ConfigError(EdgeError, ValueError):
    """A train.yaml this project cannot build; the message names the setting and what is supported."""


def from_wenet(data: Any) -> ModelConfig:
    """A ModelConfig from the parsed ``train.yaml`` of a WeNet experiment.

    Raises:
        ConfigError: not a WeNet configuration, or a module or setting outside the supported ones.
    """
    if not isinstance(data, dict) or "encoder_conf" not in data:
        raise ConfigError(
            "train.yaml: expected a WeNet configuration with 'encoder_conf', found none; "
            "pass the experiment directory that holds train.yaml and final.pt"
        )
    kinds = {
        "encoder": data.get("encoder", "conformer"),
        "decoder": data.get("decoder", "bitransformer"),
        "model": data.get("model", "asr_model"),
    }
    for key, value in kinds.items():
        _check_choice(key, value, key)
    if data.get("ctc", "ctc") != "ctc":
        raise ConfigError(f"train.yaml: ctc: {_show(data['ctc'])} is not supported; supported: ctc")
    if data.get("lora_conf") and data.get("use_lora"):
        raise ConfigError("train.yaml: use_lora: LoRA checkpoints are not supported; merge the LoRA weights first")
    for key in ("input_dim", "output_dim"):
        if not isinstance(data.get(key), int) or isinstance(data[key], bool):
            raise ConfigError(
                f"train.yaml: expected a positive integer {key!r}, found {_show(data.get(key))}; "
                "use the train.yaml that WeNet wrote beside the checkpoint, not the recipe's conf"
            )
        _check_range(key, data[key], key)
    encoder = _settings(EncoderConfig, data, "encoder_conf", _IGNORED_ENCODER, kind=kinds["encoder"])
    decoder = _settings(DecoderConfig, data, "decoder_conf", _IGNORED_DECODER, kind=kinds["decoder"])
    if encoder.output_size % decoder.attention_heads:
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
        features=_features(data),
        use_cmvn=data.get("cmvn") == "global_cmvn" or bool(data.get("cmvn_file")),
        blank=section(data, "ctc_conf").get("ctc_blank_id", 0),
        sos=special.get("<sos>", vocab - 1),
        eos=special.get("<eos>", vocab - 1),
    )
    for name in ("blank", "sos", "eos"):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab:
            raise ConfigError(f"train.yaml: special token {name} = {_show(value)} is outside 0..{vocab - 1}")
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


def section(data: dict[str, Any], name: str, inside: str = "") -> dict[str, Any]:
    """The mapping ``name`` of a parsed train.yaml, empty when it is absent; raises ConfigError for anything else."""
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"train.yaml: {inside}{name}: expected a mapping, found {_show(value)}")
    return value


def _show(value: Any) -> str:
    """``value`` in a message, however large or nested it is."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python refuses to write integers of more than 4300 digits
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__


def _check_choice(name: str, value: Any, where: str) -> None:
    if value not in _CHOICES[name]:
        raise ConfigError(
            f"train.yaml: {where}: {_show(value)} is not supported; supported: {', '.join(_CHOICES[name])}"
        )


def _check_range(name: str, value: Any, where: str) -> None:
    least, most = _RANGES.get(name, (-math.inf, math.inf))
    if name.endswith(("dropout_rate", "_weight")):
        least, most = 0, 1
    elif name.endswith("_eps"):
        least, most = 1e-20, 1
    if isinstance(value, (int, float)) and not least <= value <= most:
        raise ConfigError(f"train.yaml: {where}: expected {least} to {most}, found {_show(value)}")


def _settings(cls: Any, data: dict[str, Any], name: str, ignored: set[str] | None, **values: Any) -> Any:
    """One ``*_conf`` section as ``cls``; every setting is understood, ``ignored`` (None: all others) or refused."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "kind"}
    for key, value in section(data, name).items():
        where = f"{name}.{key}"
        if key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError(f"train.yaml: {where}: {_show(value)} is not supported; supported: {_FIXED[key]!r}")
            if key not in fields:
                continue
        if key not in fields:
            if ignored is None or key in ignored:
                continue
            raise ConfigError(f"train.yaml: {where}: unknown setting; supported: {', '.join(sorted(fields))}")
        if key in _CHOICES:
            _check_choice(key, value, where)
        values[key] = _typed(value, fields[key].default, where)
        _check_range(key, values[key], where)
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


def _typed(value: Any, default: Any, where: str) -> Any:
    """``value`` as the type of ``default``; an integer may stand for a float, nothing else is converted."""
    if isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    elif type(value) is type(default):
        return value
    raise ConfigError(f"train.yaml: {where}: expected {type(default).__name__}, found {_show(value)}")


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


def _features(data: dict[str, Any]) -> FeatureOptions:
    dataset = section(data, "dataset_conf")
    _check_choice("feats_type", dataset.get("feats_type", "fbank"), "dataset_conf.feats_type")
    fbank = section(dataset, "fbank_conf", "dataset_conf.")
    resample = section(dataset, "resample_conf", "dataset_conf.")
    settings = {
        "sample_rate": ("resample_conf.resample_rate", resample.get("resample_rate", 16000), 0),
        "num_mel_bins": ("fbank_conf.num_mel_bins", fbank.get("num_mel_bins", data["input_dim"]), 0),
        "frame_length_ms": ("fbank_conf.frame_length", fbank.get("frame_length", 25), 0.0),
        "frame_shift_ms": ("fbank_conf.frame_shift", fbank.get("frame_shift", 10), 0.0),
        "window": ("fbank_conf.window_type", fbank.get("window_type", "povey"), ""),
    }
    values = {}
    for name, (where, value, kind) in settings.items():
        values[name] = _typed(value, kind, f"dataset_conf.{where}")
        _check_range(name, values[name], f"dataset_conf.{where}")
    _check_choice("window_type", values["window"], "dataset_conf.fbank_conf.window_type")
    return FeatureOptions(**values)
