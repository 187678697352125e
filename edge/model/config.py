"""Model architecture, as frozen dataclasses. Names and defaults are those of WeNet's ``train.yaml``.

``edge.model.train_yaml`` makes them from a file. Neither imports torch: the exporter and tools read them too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.runtime.manifest import SUBSAMPLING, FeatureOptions

"""input_layer -> (feature frames per encoder frame, right context in feature frames)."""


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
    decoder: DecoderConfig | None  # None: CTC only
    loss: LossConfig = LossConfig()
    features: FeatureOptions = FeatureOptions()  # noqa: RUF009 (frozen)
    use_cmvn: bool = True
    blank: int = 0
    sos: int = 0
    eos: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as written into a bundle's manifest."""
        return dataclasses.asdict(self)
