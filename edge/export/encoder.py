"""The chunk graph: filter bank and caches in, CTC log-probabilities and the next caches out.

Source: ``wenet/models/transformer/encoder.py`` (``forward_chunk``), ``ctc.py``, ``cmvn.py``. One
graph serves every chunk size, every left context and the full-context mode.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import onnx

from edge.export.encoder_block import BlockInputs, encoder_block
from edge.export.graph import GraphBuilder, Weights
from edge.export.layers import MASKED, clamped_positions, layer_norm, position_rows, position_table
from edge.export.linear import LinearScheme
from edge.export.options import DEFAULT_OPTIONS, ExportOptions
from edge.export.subsampling import subsampling
from edge.model.config import EncoderConfig, ModelConfig

_DOC = """Streaming encoder and CTC of a U2++ model.

C = frames after subsampling of T feature frames; L = cached frames, 0 for the first chunk or the
full-context mode. Key j of the L + C keys sits at position offset - L + j, clamped into 0..4999."""


def moe_layers(config: EncoderConfig) -> list[str]:
    """Module paths of the encoder's mixtures of experts, in the order of the rows of ``expert_counts``."""
    if config.mlp_type != "moe":
        return []
    names = ("feed_forward_macaron", "feed_forward") if config.macaron_style else ("feed_forward",)
    return [f"encoder.encoders.{block}.{name}" for block in range(config.num_blocks) for name in names]


def encoder_graph(
    config: ModelConfig, weights: Weights, options: ExportOptions = DEFAULT_OPTIONS, scheme: LinearScheme | None = None
) -> onnx.ModelProto:
    """Write ``encoder.onnx``.

    Inputs: ``chunk (1, T, mel)`` float32 filter bank before CMVN, ``offset ()`` int64 encoder frames
    before this chunk, ``att_cache (blocks, heads, L, 2 * head_dim)`` and ``cnn_cache (blocks, 1, dim,
    kernel - 1)`` float32, zeros at the start of a stream (width 0 without causal convolution),
    ``att_mask (1, 1, L + C)`` bool, True = attend. Outputs: ``log_probs (1, C, vocab)``,
    ``encoder_out (1, C, dim)``, ``next_att_cache`` of L + C frames, ``next_cnn_cache`` and, for a
    mixture of experts, ``expert_counts (layers, experts)`` int64, rows as ``moe_layers``.

    Args:
        config: the architecture.
        weights: WeNet's state_dict as float32 arrays.
        options: how to compute.
        scheme: expands the linear layers; float32 when None.

    Raises:
        ExportError: weights that are missing, left over, of another shape, or not finite.
    """
    encoder = config.encoder
    blocks, dim, context = encoder.num_blocks, encoder.output_size, encoder.conv_context
    att_shape = (blocks, encoder.attention_heads, "cache", 2 * encoder.head_dim)
    cnn_shape = (blocks, 1, dim, context)
    graph = GraphBuilder("encoder", weights, options, scheme)
    chunk = graph.input("chunk", np.float32, (1, "features", config.input_dim), "filter bank, before CMVN")
    offset = graph.input("offset", np.int64, (), "encoder frames before this chunk")
    att_cache = graph.input("att_cache", np.float32, att_shape, "keys and values of earlier frames")
    cnn_cache = graph.input("cnn_cache", np.float32, cnn_shape, "earlier inputs of each convolution")
    att_mask = graph.input("att_mask", np.bool_, (1, 1, "keys"), "True = attend")

    x = _normalize(graph, chunk, config.input_dim) if config.use_cmvn else chunk
    x = subsampling(graph, x, "encoder.embed", encoder.input_layer, config.input_dim, dim)
    x, positions = _embed(graph, x, encoder, offset, att_cache)
    inputs = BlockInputs(
        bias=graph.node("Where", att_mask, graph.scalar(0.0), graph.scalar(MASKED)),
        positions=positions,
        att_cache=att_cache,
        cnn_cache=graph.transpose(graph.squeeze(cnn_cache, 1), 0, 2, 1) if context else None,
    )
    outputs = []
    for index in range(blocks):
        outputs.append(encoder_block(graph, x, encoder, index, inputs))
        x = outputs[-1].x
    if encoder.normalize_before and encoder.final_norm:
        x = layer_norm(graph, x, "encoder.after_norm", dim, encoder.norm_eps)
    else:
        graph.ignore("encoder.after_norm.weight", "encoder.after_norm.bias")
    log_probs = graph.node("LogSoftmax", graph.linear(x, "ctc.ctc_lo", dim, config.vocab_size), axis=-1)
    next_cnn = graph.stack([block.cnn_cache for block in outputs if block.cnn_cache is not None]) if context else ""
    counts = [routed for block in outputs for routed in block.counts]

    graph.output("log_probs", graph.unsqueeze(log_probs, 0), np.float32, (1, "frames", config.vocab_size), "of CTC")
    graph.output("encoder_out", graph.unsqueeze(x, 0), np.float32, (1, "frames", dim), "for rescoring")
    graph.output(
        "next_att_cache",
        graph.stack([block.att_cache for block in outputs]),
        np.float32,
        (*att_shape[:2], "keys", att_shape[3]),
        "cached and new keys and values, untrimmed",
    )
    graph.output(
        "next_cnn_cache",
        graph.unsqueeze(graph.transpose(next_cnn, 0, 2, 1), 1) if context else cnn_cache,
        np.float32,
        cnn_shape,
        "latest inputs of each convolution",
    )
    if counts:
        graph.output(
            "expert_counts",
            graph.stack(counts),
            np.int64,
            (len(counts), encoder.n_expert),
            "frames routed to each expert of: " + ", ".join(moe_layers(encoder)),
        )
    graph.check_all_used("encoder.", "ctc.")
    return graph.model(_DOC, {"u2edge.graph": "encoder", "u2edge.options": json.dumps(dataclasses.asdict(options))})


def _normalize(graph: GraphBuilder, x: str, bins: int) -> str:
    """CMVN with the statistics in the checkpoint; ``x (1, T, bins)``."""
    mean = graph.weight("encoder.global_cmvn.mean", bins)
    return graph.node("Mul", graph.node("Sub", x, mean), graph.weight("encoder.global_cmvn.istd", bins))


def _embed(graph: GraphBuilder, x: str, config: EncoderConfig, offset: str, att_cache: str) -> tuple[str, str | None]:
    """Scale ``x (C, dim)``, add absolute positions; also position vectors of the keys ``(keys, dim)``.

    WeNet combines each kind of position with each kind of attention: relative attention reads the
    table whether or not it was also added to ``x``.
    """
    dim = config.output_size
    absolute, relative = config.pos_enc_layer_type == "abs_pos", config.selfattention_layer_type == "rel_selfattn"
    none = config.pos_enc_layer_type == "no_pos"
    if not none:
        x = graph.node("Mul", x, graph.scalar(math.sqrt(dim)))
    if not absolute and not relative:
        return x, None
    end = graph.node("Add", offset, graph.size(x, 0))
    if none:  # relative attention to positions that are all zero
        keys = clamped_positions(graph, graph.node("Sub", offset, graph.size(att_cache, 2)), end)
        zero = graph.constant(np.zeros((1, dim)), np.float32)
        return x, graph.node("Gather", zero, graph.node("Mul", keys, graph.scalar(0)), axis=0)
    table = position_table(graph, "encoder.embed.pos_enc.pe", dim)

    def rows(index: str) -> str:
        return position_rows(graph, table, index)

    if absolute:
        x = graph.node("Add", x, rows(clamped_positions(graph, offset, end)))
    if not relative:
        return x, None
    index = clamped_positions(graph, graph.node("Sub", offset, graph.size(att_cache, 2)), end)
    return x, rows(index)
