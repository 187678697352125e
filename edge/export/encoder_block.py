"""One encoder block, conformer or transformer. Source: ``wenet/models/transformer/encoder_layer.py``."""

from __future__ import annotations

from dataclasses import dataclass

from edge.export.attention import AttentionSpec, chunk_attention
from edge.export.convolution import ConvolutionSpec, convolution
from edge.export.experts import FeedForwardSpec, feed_forward
from edge.export.graph import GraphBuilder
from edge.export.layers import ResidualNorm, layer_norm
from edge.model.config import EncoderConfig


@dataclass(frozen=True)
class BlockInputs:
    """What every block reads beside the previous block's output."""

    bias: str  # (1, 1, keys), added to attention scores
    positions: str | None  # (keys, dim) position vectors of the keys, for relative attention
    att_cache: str  # (blocks, heads, L, 2 * head_dim)
    cnn_cache: str | None  # (blocks, context, dim); None without causal convolution


@dataclass(frozen=True)
class BlockOutputs:
    """Output ``(C, dim)``, next caches of this block, rows routed to each expert of each mixture."""

    x: str
    att_cache: str  # (heads, keys, 2 * head_dim)
    cnn_cache: str | None  # (context, dim)
    counts: list[str]  # (experts,) each


def encoder_block(graph: GraphBuilder, x: str, config: EncoderConfig, index: int, inputs: BlockInputs) -> BlockOutputs:
    """Block ``index`` on ``x (C, dim)``.

    Conformer: [half feed-forward], attention, [convolution], [half] feed-forward, [norm]; the parts
    in brackets are optional. Transformer: attention, feed-forward.
    """
    path, dim = f"encoder.encoders.{index}", config.output_size
    norm = ResidualNorm(path, dim, config.norm_eps, config.normalize_before)
    attention_norm, feed_forward_norm = ("norm_mha", "norm_ff") if config.kind == "conformer" else ("norm1", "norm2")
    spec, scale = _feed_forward(config), 0.5 if config.macaron_style else 1.0
    counts: list[str] = []

    def forward(x: str, name: str, norm_name: str) -> str:
        y, routed = feed_forward(graph, norm.before(graph, x, norm_name), f"{path}.{name}", spec, scale)
        if routed is not None:
            counts.append(routed)
        return norm.after(graph, x, y, norm_name)

    if config.macaron_style:
        x = forward(x, "feed_forward_macaron", "norm_ff_macaron")
    cache = graph.node("Gather", inputs.att_cache, graph.scalar(index), axis=0)
    y, att_cache = chunk_attention(
        graph,
        norm.before(graph, x, attention_norm),
        f"{path}.self_attn",
        _attention(config),
        cache,
        inputs.bias,
        inputs.positions,
    )
    x = norm.after(graph, x, y, attention_norm)
    cnn_cache = None
    if config.use_cnn_module:
        if inputs.cnn_cache is not None:
            cnn_cache = graph.node("Gather", inputs.cnn_cache, graph.scalar(index), axis=0)
        y, cnn_cache = convolution(
            graph, norm.before(graph, x, "norm_conv"), f"{path}.conv_module", _convolution(config), cnn_cache
        )
        x = norm.after(graph, x, y, "norm_conv")
    x = forward(x, "feed_forward", feed_forward_norm)
    if config.use_cnn_module:
        x = layer_norm(graph, x, f"{path}.norm_final", dim, config.norm_eps)
    return BlockOutputs(x, att_cache, cnn_cache, counts)


def _attention(config: EncoderConfig) -> AttentionSpec:
    return AttentionSpec(
        config.output_size, config.attention_heads, config.query_bias, config.key_bias, config.value_bias
    )


def _feed_forward(config: EncoderConfig) -> FeedForwardSpec:
    moe = config.mlp_type == "moe"
    return FeedForwardSpec(
        config.output_size,
        config.linear_units,
        config.activation_type,
        config.mlp_bias,
        config.n_expert if moe else 0,
        config.n_expert_activated if moe else 0,
    )


def _convolution(config: EncoderConfig) -> ConvolutionSpec:
    return ConvolutionSpec(
        config.output_size,
        config.cnn_module_kernel,
        config.conv_context,
        config.conv_bias,
        config.activation_type,
        config.cnn_module_norm,
        config.conv_norm_eps,
    )
