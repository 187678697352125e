"""Model architecture, as frozen dataclasses read from a WeNet ``train.yaml``.

Names and defaults are WeNet's (``wenet/models/transformer/encoder.py``, ``decoder.py``,
``wenet/utils/init_model.py``). What the project does not build is refused here, by name, before
any weight is touched. This file does not import torch: the exporter and tools read it too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.runtime.errors import EdgeError
from edge.runtime.manifest import FeatureOptions

SUBSAMPLING = {"conv2d": (4, 6), "conv2d6": (6, 10), "conv2d8": (8, 14)}
"""input_layer -> (feature frames per encoder frame, right context in feature frames)."""

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


class ConfigError(EdgeError, ValueError):
    """A train.yaml this project cannot build; the message names the setting and what is supported."""


@dataclass(frozen=True)
class EncoderConfig:
    """Conformer or transformer encoder (``encoder_conf``)."""

    kind: str = "conformer"
    output_size: int = 256
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 6
    dropout_rate: float = 0.1
    positional_dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.0
    input_layer: str = "conv2d"
    pos_enc_layer_type: str = "rel_pos"
    normalize_before: bool = True
    static_chunk_size: int = 0
    use_dynamic_chunk: bool = False
    use_dynamic_left_chunk: bool = False
    macaron_style: bool = True
    selfattention_layer_type: str = "rel_selfattn"
    activation_type: str = "swish"
    use_cnn_module: bool = True
    cnn_module_kernel: int = 15
    causal: bool = False
    cnn_module_norm: str = "batch_norm"
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True
    conv_bias: bool = True
    layer_norm_type: str = "layer_norm"
    norm_eps: float = 1e-5
    conv_norm_eps: float = 1e-5
    final_norm: bool = True
    mlp_type: str = "position_wise_feed_forward"
    mlp_bias: bool = True
    n_expert: int = 8
    n_expert_activated: int = 2

    @property
    def head_dim(self) -> int:
        return self.output_size // self.attention_heads

    @property
    def subsampling(self) -> int:
        """Feature frames per encoder frame."""
        return SUBSAMPLING[self.input_layer][0]

    @property
    def right_context(self) -> int:
        """Feature frames needed after the first one of an encoder frame."""
        return SUBSAMPLING[self.input_layer][1]

    @property
    def conv_context(self) -> int:
        """Frames of convolution history a chunk needs (0 without causal convolution)."""
        return self.cnn_module_kernel - 1 if self.use_cnn_module and self.causal else 0

    def why_not_streaming(self) -> str:
        """One sentence when the model cannot stream, else ''."""
        if self.use_cnn_module and not self.causal:
            return "its convolution is not causal (encoder_conf.causal: false), so every frame needs future frames"
        if not self.use_dynamic_chunk and self.static_chunk_size <= 0:
            return "it was trained without chunk masks (encoder_conf.use_dynamic_chunk: false, static_chunk_size: 0)"
        return ""


@dataclass(frozen=True)
class DecoderConfig:
    """Attention decoder; ``bitransformer`` has a second one that reads right to left."""

    kind: str = "bitransformer"
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 6
    r_num_blocks: int = 0
    dropout_rate: float = 0.1
    positional_dropout_rate: float = 0.1
    self_attention_dropout_rate: float = 0.0
    src_attention_dropout_rate: float = 0.0
    input_layer: str = "embed"
    use_output_layer: bool = True
    normalize_before: bool = True
    src_attention: bool = True
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True
    src_query_bias: bool = True
    src_key_bias: bool = True
    src_value_bias: bool = True
    activation_type: str = "relu"
    layer_norm_type: str = "layer_norm"
    norm_eps: float = 1e-5
    mlp_type: str = "position_wise_feed_forward"
    mlp_bias: bool = True
    n_expert: int = 8
    n_expert_activated: int = 2

    @property
    def bidirectional(self) -> bool:
        return self.kind == "bitransformer"


@dataclass(frozen=True)
class LossConfig:
    """``model_conf``: how CTC and attention losses combine, and the default rescoring weight."""

    ctc_weight: float = 0.5
    lsm_weight: float = 0.0
    reverse_weight: float = 0.0
    length_normalized_loss: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """A U2++ model: encoder, CTC, one or two attention decoders."""

    input_dim: int
    vocab_size: int
    encoder: EncoderConfig
    decoder: DecoderConfig
    loss: LossConfig = LossConfig()
    features: FeatureOptions = FeatureOptions()
    use_cmvn: bool = True
    blank: int = 0
    sos: int = 0
    eos: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as written into a bundle's manifest."""
        return dataclasses.asdict(self)


def from_wenet(data: Any) -> ModelConfig:
    """A ModelConfig from the parsed ``train.yaml`` of a WeNet experiment.

    Raises:
        ConfigError: not a WeNet configuration, or a module or setting outside the supported ones.
    """
    if not isinstance(data, dict) or "encoder_conf" not in data:
        raise ConfigError("train.yaml: expected a WeNet configuration with 'encoder_conf', found none; "
                          "pass the experiment directory that holds train.yaml and final.pt")
    for key in ("input_dim", "output_dim"):
        if not isinstance(data.get(key), int) or data[key] <= 0:
            raise ConfigError(f"train.yaml: expected a positive integer {key!r}, found {data.get(key)!r}; "
                              "use the train.yaml that WeNet wrote beside the checkpoint, not the recipe's conf")
    kinds = {"encoder": data.get("encoder", "conformer"), "decoder": data.get("decoder", "bitransformer"),
             "model": data.get("model", "asr_model")}
    for key, value in kinds.items():
        _check_choice(key, value, key)
    if data.get("ctc", "ctc") != "ctc":
        raise ConfigError(f"train.yaml: ctc: {data['ctc']!r} is not supported; supported: ctc")
    if data.get("lora_conf") and data.get("use_lora"):
        raise ConfigError("train.yaml: use_lora: LoRA checkpoints are not supported; merge the LoRA weights first")
    encoder = _section(EncoderConfig, data, "encoder_conf", kinds["encoder"], _IGNORED_ENCODER)
    decoder = _section(DecoderConfig, data, "decoder_conf", kinds["decoder"], _IGNORED_DECODER)
    model_conf = data.get("model_conf") or {}
    if model_conf.get("apply_non_blank_embedding"):
        raise ConfigError("train.yaml: model_conf.apply_non_blank_embedding: true is not supported")
    vocab = data["output_dim"]
    special = (data.get("tokenizer_conf") or {}).get("special_tokens")
    last = vocab - 1
    special = special if isinstance(special, dict) else {}
    config = ModelConfig(
        input_dim=data["input_dim"],
        vocab_size=vocab,
        encoder=encoder,
        decoder=decoder,
        loss=LossConfig(**{f.name: model_conf[f.name] for f in dataclasses.fields(LossConfig) if f.name in model_conf}),
        features=_features(data),
        use_cmvn=data.get("cmvn") == "global_cmvn" or bool(data.get("cmvn_file")),
        blank=(data.get("ctc_conf") or {}).get("ctc_blank_id", 0),
        sos=special.get("<sos>", last),
        eos=special.get("<eos>", last),
    )
    for name in ("blank", "sos", "eos"):
        if not isinstance(getattr(config, name), int) or not 0 <= getattr(config, name) < vocab:
            raise ConfigError(f"train.yaml: special token {name} = {getattr(config, name)!r} is outside 0..{vocab - 1}")
    if config.features.num_mel_bins != config.input_dim:
        raise ConfigError(f"train.yaml: input_dim {config.input_dim} differs from "
                          f"fbank_conf.num_mel_bins {config.features.num_mel_bins}")
    return config


def _check_choice(name: str, value: Any, where: str) -> None:
    if value not in _CHOICES[name]:
        raise ConfigError(f"train.yaml: {where}: {value!r} is not supported; supported: {', '.join(_CHOICES[name])}")


def _section(cls: Any, data: dict[str, Any], name: str, kind: str, ignored: set[str]) -> Any:
    """One ``*_conf`` section as ``cls``; every setting is understood, harmless or refused."""
    conf = data.get(name) or {}
    if not isinstance(conf, dict):
        raise ConfigError(f"train.yaml: {name}: expected a mapping, found {type(conf).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "kind"}
    values: dict[str, Any] = {"kind": kind}
    for key, value in conf.items():
        where = f"{name}.{key}"
        if key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError(f"train.yaml: {where}: {value!r} is not supported; supported: {_FIXED[key]!r}")
            if key not in fields:
                continue
        if key in ignored and key not in fields:
            continue
        if key not in fields:
            raise ConfigError(f"train.yaml: {where}: unknown setting; supported: {', '.join(sorted(fields))}")
        if key in _CHOICES:
            _check_choice(key, value, where)
        default = fields[key].default
        if isinstance(default, bool) != isinstance(value, bool) or not isinstance(value, (bool, int, float, str)):
            raise ConfigError(f"train.yaml: {where}: expected {type(default).__name__}, found {value!r}")
        if isinstance(default, float):
            value = float(value)
        elif not isinstance(value, type(default)):
            raise ConfigError(f"train.yaml: {where}: expected {type(default).__name__}, found {value!r}")
        values[key] = value
    if cls is EncoderConfig and kind == "transformer":
        # WeNet's TransformerEncoder has other defaults than its ConformerEncoder, and no convolution.
        for key, value in {"pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn",
                           "activation_type": "relu"}.items():
            values.setdefault(key, value)
        values.update(macaron_style=False, use_cnn_module=False, causal=False)
        if values["selfattention_layer_type"] != "selfattn":
            raise ConfigError("train.yaml: encoder_conf.selfattention_layer_type: a transformer encoder supports: selfattn")
    config = cls(**values)
    _check_sizes(config, name)
    if isinstance(config, DecoderConfig) and config.input_layer != "embed":
        raise ConfigError(f"train.yaml: decoder_conf.input_layer: {config.input_layer!r} is not supported; supported: embed")
    return config


def _check_sizes(config: EncoderConfig | DecoderConfig, name: str) -> None:
    for key in ("attention_heads", "linear_units", "num_blocks"):
        if getattr(config, key) <= 0:
            raise ConfigError(f"train.yaml: {name}.{key}: expected a positive integer, found {getattr(config, key)}")
    if config.mlp_type == "moe" and not 0 < config.n_expert_activated <= config.n_expert:
        raise ConfigError(f"train.yaml: {name}: expected 0 < n_expert_activated <= n_expert, "
                          f"found {config.n_expert_activated} and {config.n_expert}")
    if isinstance(config, EncoderConfig):
        if config.output_size % config.attention_heads:
            raise ConfigError(f"train.yaml: {name}.output_size {config.output_size} is not a multiple of "
                              f"attention_heads {config.attention_heads}")
        if config.use_cnn_module and not config.causal and config.cnn_module_kernel % 2 == 0:
            raise ConfigError(f"train.yaml: {name}.cnn_module_kernel: {config.cnn_module_kernel} is even; "
                              "a convolution that is not causal needs an odd kernel")


def _features(data: dict[str, Any]) -> FeatureOptions:
    dataset = data.get("dataset_conf") or {}
    _check_choice("feats_type", dataset.get("feats_type", "fbank"), "dataset_conf.feats_type")
    fbank = dataset.get("fbank_conf") or {}
    return FeatureOptions(
        sample_rate=int((dataset.get("resample_conf") or {}).get("resample_rate", 16000)),
        num_mel_bins=int(fbank.get("num_mel_bins", data["input_dim"])),
        frame_length_ms=float(fbank.get("frame_length", 25)),
        frame_shift_ms=float(fbank.get("frame_shift", 10)),
        window=str(fbank.get("window_type", "povey")),
    )
