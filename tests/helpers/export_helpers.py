"""Tiny models with random weights, and one way to run an exported encoder: shared by the export tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edge.model.config import DecoderConfig, EncoderConfig, ModelConfig
from edge.runtime.engines.onnxruntime_session import session

Float32 = npt.NDArray[np.float32]
_CONVOLUTIONS = {"conv2d": ((3, 2), (3, 2)), "conv2d6": ((3, 2), (5, 3)), "conv2d8": ((3, 2), (3, 2), (3, 2))}


def tiny_config(encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None) -> ModelConfig:
    """A streaming MoE model of 2 + 1 + 1 blocks, dim 16; arguments override the settings."""
    e: dict[str, Any] = {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 24,
        "num_blocks": 2,
        "causal": True,
        "cnn_module_kernel": 5,
        "cnn_module_norm": "layer_norm",
        "mlp_type": "moe",
        "n_expert": 4,
        "use_dynamic_chunk": True,
    }
    d: dict[str, Any] = {
        "attention_heads": 2,
        "linear_units": 24,
        "num_blocks": 1,
        "r_num_blocks": 1,
        "mlp_type": "moe",
        "n_expert": 4,
    }
    encoder_config, decoder_config = EncoderConfig(**e | (encoder or {})), DecoderConfig(**d | (decoder or {}))
    return ModelConfig(23, 11, encoder_config, decoder_config, sos=9, eos=10)


class _Names(dict[str, Float32]):
    """Collects random weights under WeNet's names."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.default_rng(seed)

    def add(self, name: str, *shape: int) -> None:
        scale = 0.2 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
        self[name] = (self.random.standard_normal(shape) * scale).astype(np.float32)

    def linear(self, name: str, outputs: int, *inputs: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", outputs, *inputs)
        if bias:
            self.add(f"{name}.bias", outputs)

    def norm(self, name: str, dim: int, batch: bool = False) -> None:
        self.linear(name, dim)
        self[f"{name}.weight"] += 1
        if batch:
            self.add(f"{name}.running_mean", dim)
            self[f"{name}.running_var"] = self.random.uniform(0.5, 2, dim).astype(np.float32)

    def attention(self, name: str, dim: int, heads: int = 0) -> None:
        for part in ("q", "k", "v", "out"):
            self.linear(f"{name}.linear_{part}", dim, dim)
        if heads:
            self.add(f"{name}.linear_pos.weight", dim, dim)
            self.add(f"{name}.pos_bias_u", heads, dim // heads)
            self.add(f"{name}.pos_bias_v", heads, dim // heads)

    def feed_forward(self, name: str, dim: int, config: EncoderConfig | DecoderConfig) -> None:
        moe = config.mlp_type == "moe"
        if moe:
            self.linear(f"{name}.gate", config.n_expert, dim, bias=False)
            self[f"{name}.gate.weight"] *= 5  # clear decisions, so that rounding cannot flip them
        for path in [f"{name}.experts.{i}" for i in range(config.n_expert)] if moe else [name]:
            self.linear(f"{path}.w_1", config.linear_units, dim, bias=config.mlp_bias)
            self.linear(f"{path}.w_2", dim, config.linear_units, bias=config.mlp_bias)


def tiny_weights(config: ModelConfig, seed: int = 0) -> dict[str, Float32]:
    """Random weights for ``config``, every bias present except ``mlp_bias: false``."""
    names, encoder, dim = _Names(seed), config.encoder, config.encoder.output_size
    names.add("encoder.global_cmvn.mean", config.input_dim)
    names["encoder.global_cmvn.istd"] = names.random.uniform(0.5, 2, config.input_dim).astype(np.float32)
    bins, channels = config.input_dim, 1
    for i, (kernel, stride) in enumerate(_CONVOLUTIONS[encoder.input_layer]):
        names.linear(f"encoder.embed.conv.{2 * i}", dim, channels, kernel, kernel)
        bins, channels = (bins - kernel) // stride + 1, dim
    names.linear("encoder.embed.out.0" if encoder.input_layer == "conv2d" else "encoder.embed.linear", dim, dim * bins)
    names.norm("encoder.after_norm", dim)
    conformer = encoder.kind == "conformer"
    for block in range(encoder.num_blocks):
        path = f"encoder.encoders.{block}"
        relative = encoder.selfattention_layer_type == "rel_selfattn"
        names.attention(f"{path}.self_attn", dim, encoder.attention_heads if relative else 0)
        names.feed_forward(f"{path}.feed_forward", dim, encoder)
        for norm in ("norm_ff", "norm_mha") if conformer else ("norm1", "norm2"):
            names.norm(f"{path}.{norm}", dim)
        if encoder.macaron_style:
            names.feed_forward(f"{path}.feed_forward_macaron", dim, encoder)
            names.norm(f"{path}.norm_ff_macaron", dim)
        if encoder.use_cnn_module:
            names.norm(f"{path}.norm_conv", dim)
            names.norm(f"{path}.norm_final", dim)
            names.linear(f"{path}.conv_module.pointwise_conv1", 2 * dim, dim, 1)
            names.linear(f"{path}.conv_module.depthwise_conv", dim, 1, encoder.cnn_module_kernel)
            names.norm(f"{path}.conv_module.norm", dim, batch=encoder.cnn_module_norm == "batch_norm")
            names.linear(f"{path}.conv_module.pointwise_conv2", dim, dim, 1)
    names.linear("ctc.ctc_lo", config.vocab_size, dim)
    both = (("decoder.left_decoder", config.decoder.num_blocks), ("decoder.right_decoder", config.decoder.r_num_blocks))
    for path, blocks in both if config.decoder.bidirectional else (("decoder", config.decoder.num_blocks),):
        names.add(f"{path}.embed.0.weight", config.vocab_size, dim)
        names.norm(f"{path}.after_norm", dim)
        names.linear(f"{path}.output_layer", config.vocab_size, dim)
        for block in range(blocks):
            names.attention(f"{path}.decoders.{block}.self_attn", dim)
            names.attention(f"{path}.decoders.{block}.src_attn", dim)
            names.feed_forward(f"{path}.decoders.{block}.feed_forward", dim, config.decoder)
            for norm in ("norm1", "norm2", "norm3"):
                names.norm(f"{path}.decoders.{block}.{norm}", dim)
    return dict(names)


def load(model: onnx.ModelProto | str) -> ort.InferenceSession:
    return session(model if isinstance(model, str) else model.SerializeToString(), 1)


def run(session: ort.InferenceSession, **inputs: Any) -> dict[str, npt.NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: np.asarray(v) for k, v in inputs.items()}), strict=True))


class Stream:
    """An exported encoder with its caches, as the bundle contract says a caller keeps them."""

    def __init__(self, model: onnx.ModelProto, config: ModelConfig, cached: int = 0, offset: int = 0) -> None:
        e = config.encoder
        self.session, self.config, self.offset = load(model), config, offset
        self.att_cache = np.zeros((e.num_blocks, e.attention_heads, cached, 2 * e.head_dim), np.float32)
        self.cnn_cache = np.zeros((e.num_blocks, 1, e.output_size, e.conv_context), np.float32)

    def frames(self, features: int) -> int:
        for kernel, stride in _CONVOLUTIONS[self.config.encoder.input_layer]:
            features = (features - kernel) // stride + 1
        return features

    def step(self, features: Float32, keep: int = -1, mask: npt.NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """Run one window of features ``(T, mel)``; keep the last ``keep`` frames of attention cache (-1: all)."""
        cached, fresh = self.att_cache.shape[2], self.frames(len(features))
        mask = np.ones(cached + fresh, bool) if mask is None else mask
        out = run(
            self.session,
            chunk=features[None],
            offset=np.int64(self.offset),
            att_cache=self.att_cache,
            cnn_cache=self.cnn_cache,
            att_mask=mask[None, None],
        )
        assert out["next_att_cache"].shape[2] == cached + fresh
        self.att_cache = out["next_att_cache"][:, :, max(cached + fresh - keep, 0) if keep >= 0 else 0 :]
        self.cnn_cache = out["next_cnn_cache"]
        self.offset += fresh
        return out

    def run(self, features: Float32, chunk: int, left: int) -> tuple[Float32, Float32]:
        """encoder_out and log_probs of all ``features``, chunk by chunk as WeNet cuts them."""
        e = self.config.encoder
        window = (chunk - 1) * e.subsampling + e.right_context + 1
        outs = [
            self.step(features[start : start + window], chunk * left if left >= 0 else -1)
            for start in range(0, len(features) - e.right_context, chunk * e.subsampling)
        ]
        return np.concatenate([o["encoder_out"][0] for o in outs]), np.concatenate([o["log_probs"][0] for o in outs])
