"""The rescoring graph: n-best hypotheses and encoder output in, token log-probabilities out.

Source: ``wenet/models/transformer/asr_model.py`` (``forward_attention_decoder``), ``decoder.py``,
``decoder_layer.py``. Tokens are rows: everything but self-attention works on ``(N * U, dim)``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
import onnx

from edge.export.attention import AttentionSpec, causal_attention, cross_attention
from edge.export.experts import FeedForwardSpec, feed_forward
from edge.export.graph import GraphBuilder, Weights
from edge.export.layers import MASKED, ResidualNorm, layer_norm, position_rows, position_table
from edge.export.linear import LinearScheme
from edge.export.options import DEFAULT_OPTIONS, ExportError, ExportOptions
from edge.model.config import DecoderConfig, ModelConfig
from edge.runtime.manifest import MAX_POSITIONS

_DOC = """Attention rescoring of a U2++ model: N hypotheses of U tokens against one utterance of T frames.
A hypothesis starts with sos and is padded with eos; hyps_lens counts sos. Its reverse is built inside."""


def decoder_graph(
    config: ModelConfig, weights: Weights, options: ExportOptions = DEFAULT_OPTIONS, scheme: LinearScheme | None = None
) -> onnx.ModelProto:
    """Write ``decoder.onnx``.

    Inputs: ``hyps (N, U)`` int64, sos first, padded with eos; ``hyps_lens (N,)`` int64, at least 1,
    counting sos; ``encoder_out (1, T, dim)`` float32. Outputs: ``score`` and ``r_score (N, U, vocab)``
    log-probabilities of the next token reading left to right and right to left; ``r_score`` is zeros
    without a right-to-left decoder. Rows at or beyond ``hyps_lens`` mean nothing.

    Args:
        config: the architecture.
        weights: WeNet's state_dict as float32 arrays.
        options: how to compute.
        scheme: expands the linear layers; float32 when None.

    Raises:
        ExportError: weights that are missing, left over, of another shape, or not finite.
    """
    dim, vocab = config.encoder.output_size, config.vocab_size
    graph = GraphBuilder("decoder", weights, options, scheme)
    hyps = graph.input("hyps", np.int64, ("hypotheses", "tokens"), "sos first, padded with eos")
    lens = graph.input("hyps_lens", np.int64, ("hypotheses",), "tokens including sos")
    memory = graph.squeeze(graph.input("encoder_out", np.float32, (1, "frames", dim), "of the chunk graph"), 0)

    index = graph.node("Range", graph.scalar(0), graph.size(hyps, 1), graph.scalar(1))  # (U,)
    valid = graph.node("Less", index, graph.unsqueeze(lens, 1))  # (N, U)
    earlier = graph.node("LessOrEqual", index, graph.unsqueeze(index, 1))  # (U, U)
    seen = graph.node("And", graph.unsqueeze(valid, 1), earlier)  # (N, U, U)
    tokens = _Tokens(
        batch=graph.dim(hyps, 0),
        length=graph.dim(hyps, 1),
        positions=graph.node("Clip", index, graph.scalar(0), graph.scalar(MAX_POSITIONS - 1)),
        bias=graph.unsqueeze(graph.node("Where", seen, graph.scalar(0.0), graph.scalar(MASKED)), 1),
        memory=memory,
    )
    decoder = _settings(config)
    if decoder.bidirectional:
        score = _direction(graph, "decoder.left_decoder", decoder.num_blocks, config, hyps, tokens)
        reverse = _reverse(graph, hyps, lens, index, valid, config.eos)
        r_score = _direction(graph, "decoder.right_decoder", decoder.r_num_blocks, config, reverse, tokens)
    else:
        score = _direction(graph, "decoder", decoder.num_blocks, config, hyps, tokens)
        r_score = graph.node("ConstantOfShape", graph.node("Shape", score))
    shape = ("hypotheses", "tokens", vocab)
    graph.output("score", score, np.float32, shape, "log-probabilities, left to right")
    graph.output("r_score", r_score, np.float32, shape, "log-probabilities, right to left")
    graph.check_all_used("decoder.")
    return graph.model(_DOC, {"u2edge.graph": "decoder", "u2edge.options": json.dumps(dataclasses.asdict(options))})


def _settings(config: ModelConfig) -> DecoderConfig:
    if config.decoder is None:
        raise ExportError("expected a model with an attention decoder, found CTC only")
    return config.decoder


@dataclass(frozen=True)
class _Tokens:
    """What both directions share."""

    batch: str  # N, 1-D
    length: str  # U, 1-D
    positions: str  # (U,)
    bias: str  # (N, 1, U, U), added to self-attention scores
    memory: str  # (T, dim)


def _reverse(graph: GraphBuilder, hyps: str, lens: str, index: str, valid: str, eos: int) -> str:
    """sos, then the tokens of each hypothesis backwards, then eos: ``(N, U)``."""
    behind = graph.node("And", valid, graph.node("Less", graph.scalar(0), index))  # neither sos nor padding
    source = graph.node("Where", behind, graph.node("Sub", graph.unsqueeze(lens, 1), index), graph.scalar(0))
    return graph.node("Where", valid, graph.node("GatherElements", hyps, source, axis=1), graph.scalar(eos))


def _direction(graph: GraphBuilder, path: str, blocks: int, config: ModelConfig, hyps: str, tokens: _Tokens) -> str:
    """One decoder, from token ids ``(N, U)`` to log-probabilities ``(N, U, vocab)``."""
    decoder, dim, vocab = _settings(config), config.encoder.output_size, config.vocab_size
    positions = position_rows(graph, position_table(graph, f"{path}.embed.1.pe", dim), tokens.positions)
    x = graph.node("Gather", graph.weight(f"{path}.embed.0.weight", vocab, dim), hyps, axis=0)
    x = graph.node("Add", graph.node("Mul", x, graph.scalar(math.sqrt(dim))), positions)
    x = graph.reshape(x, -1, dim)
    for block in range(blocks):
        x = _block(graph, x, f"{path}.decoders.{block}", decoder, dim, tokens)
    if decoder.normalize_before:
        x = layer_norm(graph, x, f"{path}.after_norm", dim, decoder.norm_eps)
    else:
        graph.ignore(f"{path}.after_norm.weight", f"{path}.after_norm.bias")
    x = graph.node("LogSoftmax", graph.linear(x, f"{path}.output_layer", dim, vocab), axis=-1)
    return graph.reshape(x, tokens.batch, tokens.length, vocab)


def _block(graph: GraphBuilder, x: str, path: str, config: DecoderConfig, dim: int, tokens: _Tokens) -> str:
    """Self-attention, cross attention, feed-forward on ``x (N * U, dim)``."""
    norm = ResidualNorm(path, dim, config.norm_eps, config.normalize_before)
    own = AttentionSpec(dim, config.attention_heads, config.query_bias, config.key_bias, config.value_bias)
    # WeNet's BiTransformerDecoder does not pass the src_*_bias settings on: always with bias.
    source = (
        AttentionSpec(dim, config.attention_heads)
        if config.bidirectional
        else AttentionSpec(
            dim, config.attention_heads, config.src_query_bias, config.src_key_bias, config.src_value_bias
        )
    )
    y = causal_attention(
        graph, norm.before(graph, x, "norm1"), f"{path}.self_attn", own, tokens.batch, tokens.length, tokens.bias
    )
    x = norm.after(graph, x, y, "norm1")
    y = cross_attention(graph, norm.before(graph, x, "norm2"), f"{path}.src_attn", source, tokens.memory)
    x = norm.after(graph, x, y, "norm2")
    moe = config.mlp_type == "moe"
    layer = FeedForwardSpec(
        dim,
        config.linear_units,
        config.activation_type,
        config.mlp_bias,
        config.n_expert if moe else 0,
        config.n_expert_activated if moe else 0,
    )
    y, _ = feed_forward(graph, norm.before(graph, x, "norm3"), f"{path}.feed_forward", layer)
    return norm.after(graph, x, y, "norm3")
