"""U2++ encoder: one set of weights for full context and for chunks (arXiv 2106.05642, section 2).

Module and parameter names follow ``wenet/models/transformer/encoder.py`` so that its checkpoints load
key for key.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge.model.attention import ATTENTION
from edge.model.config import EncoderConfig
from edge.model.convolution import ConvolutionModule
from edge.model.embedding import Conv2dSubsampling, GlobalCmvn, NoPositions, Positions
from edge.model.feedforward import build_feedforward
from edge.model.masks import chunk_mask, valid_mask


def _feedforward(c: EncoderConfig) -> nn.Module:
    return build_feedforward(
        c.mlp_type,
        c.output_size,
        c.linear_units,
        c.dropout_rate,
        c.activation_type,
        c.mlp_bias,
        c.n_expert,
        c.n_expert_activated,
    )


class _Residual(nn.Module):
    """Shared pre-/post-norm plumbing of the two layer kinds."""

    def __init__(self, c: EncoderConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(c.dropout_rate)
        self.pre_norm = c.normalize_before

    def enter(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def leave(self, norm: nn.Module, residual: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
        x = residual + scale * self.dropout(x)
        return x if self.pre_norm else norm(x)


class ConformerLayer(_Residual):
    """Half feed-forward, attention, convolution, half feed-forward (arXiv 2005.08100, figure 1)."""

    def __init__(self, c: EncoderConfig) -> None:
        super().__init__(c)
        dim = c.output_size
        self.self_attn = ATTENTION[c.selfattention_layer_type](
            c.attention_heads, dim, c.attention_dropout_rate, c.query_bias, c.key_bias, c.value_bias
        )
        self.feed_forward = _feedforward(c)
        self.feed_forward_macaron = _feedforward(c) if c.macaron_style else None
        self.conv_module = (
            ConvolutionModule(
                dim, c.cnn_module_kernel, c.activation_type, c.cnn_module_norm, c.causal, c.conv_bias, c.conv_norm_eps
            )
            if c.use_cnn_module
            else None
        )
        self.norm_ff = nn.LayerNorm(dim, c.norm_eps)
        self.norm_mha = nn.LayerNorm(dim, c.norm_eps)
        if self.feed_forward_macaron is not None:
            self.norm_ff_macaron = nn.LayerNorm(dim, c.norm_eps)
        if self.conv_module is not None:
            self.norm_conv = nn.LayerNorm(dim, c.norm_eps)
            self.norm_final = nn.LayerNorm(dim, c.norm_eps)
        self.ff_scale = 0.5 if c.macaron_style else 1.0

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        valid: Tensor | None,
        att_cache: Tensor | None,
        cnn_cache: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.feed_forward_macaron is not None:
            y = self.feed_forward_macaron(self.enter(self.norm_ff_macaron, x))
            x = self.leave(self.norm_ff_macaron, x, y, self.ff_scale)
        y = self.enter(self.norm_mha, x)
        y, new_att_cache = self.self_attn(y, y, mask, positions, att_cache)
        x = self.leave(self.norm_mha, x, y)
        new_cnn_cache = x.new_zeros(x.size(0), x.size(2), 0)
        if self.conv_module is not None:
            y, new_cnn_cache = self.conv_module(self.enter(self.norm_conv, x), valid, cnn_cache)
            x = self.leave(self.norm_conv, x, y)
        x = self.leave(self.norm_ff, x, self.feed_forward(self.enter(self.norm_ff, x)), self.ff_scale)
        if self.conv_module is not None:
            x = self.norm_final(x)
        return x, new_att_cache, new_cnn_cache


class TransformerLayer(_Residual):
    """Attention and feed-forward (arXiv 1706.03762)."""

    def __init__(self, c: EncoderConfig) -> None:
        super().__init__(c)
        self.self_attn = ATTENTION[c.selfattention_layer_type](
            c.attention_heads, c.output_size, c.attention_dropout_rate, c.query_bias, c.key_bias, c.value_bias
        )
        self.feed_forward = _feedforward(c)
        self.norm1 = nn.LayerNorm(c.output_size, c.norm_eps)
        self.norm2 = nn.LayerNorm(c.output_size, c.norm_eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        valid: Tensor | None,
        att_cache: Tensor | None,
        cnn_cache: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = self.enter(self.norm1, x)
        y, new_att_cache = self.self_attn(y, y, mask, positions, att_cache)
        x = self.leave(self.norm1, x, y)
        x = self.leave(self.norm2, x, self.feed_forward(self.enter(self.norm2, x)))
        return x, new_att_cache, x.new_zeros(x.size(0), x.size(2), 0)


class Encoder(nn.Module):
    """Feature frames (batch, frames, mel) to encoder frames (batch, frames', dim)."""

    def __init__(self, c: EncoderConfig, mel: int, cmvn: GlobalCmvn | None) -> None:
        super().__init__()
        self.config = c
        self.global_cmvn = cmvn
        absolute = c.pos_enc_layer_type == "abs_pos"
        positions = (
            NoPositions(c.output_size, c.positional_dropout_rate)
            if c.pos_enc_layer_type == "no_pos"
            else Positions(c.output_size, c.positional_dropout_rate, absolute)
        )
        self.embed = Conv2dSubsampling(c.input_layer, mel, c.output_size, positions)
        self.after_norm = nn.LayerNorm(c.output_size, c.norm_eps)
        layer = ConformerLayer if c.kind == "conformer" else TransformerLayer
        self.encoders = nn.ModuleList(layer(c) for _ in range(c.num_blocks))

    def _finish(self, x: Tensor) -> Tensor:
        return self.after_norm(x) if self.config.normalize_before and self.config.final_norm else x

    def forward(self, feats: Tensor, lengths: Tensor, chunk: int = -1, left_chunks: int = -1) -> tuple[Tensor, Tensor]:
        """Encode whole utterances, as if in chunks of ``chunk`` frames when it is positive.

        Args:
            feats: (batch, frames, mel), float32, before CMVN.
            lengths: (batch,), int64, valid feature frames.
            chunk: encoder frames per chunk; -1 for full context.
            left_chunks: chunks of history; -1 for all.

        Returns:
            (batch, frames', dim) and its mask (batch, 1, frames').

        Raises:
            ValueError: a chunk for a model that cannot stream, with the reason.
        """
        if self.config.static_chunk_size > 0 and not self.config.use_dynamic_chunk:
            chunk = self.config.static_chunk_size  # such a model has never seen another chunk; WeNet does the same
        if chunk > 0:
            self._require_streaming()
        x = feats if self.global_cmvn is None else self.global_cmvn(feats)
        x, positions = self.embed(x)
        valid = self.embed.subsample(valid_mask(lengths, feats.size(1)))
        mask = valid
        if chunk > 0:
            mask = valid & chunk_mask(x.size(1), chunk, left_chunks, x.device)
        for layer in self.encoders:
            x, _, _ = layer(x, mask, positions, valid, None, None)
        return self._finish(x), valid

    def forward_chunk(
        self,
        feats: Tensor,
        offset: int,
        att_cache: Tensor | None = None,
        cnn_cache: Tensor | None = None,
        left_context: int = -1,
        att_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one chunk with the state of the chunks before it.

        Args:
            feats: (1, frames, mel) with the right context the subsampling needs.
            offset: encoder frames before this chunk (position of its first frame).
            att_cache: (blocks, heads, history, 2 * head_dim) or None.
            cnn_cache: (blocks, 1, dim, kernel - 1) or None.
            left_context: frames of history to keep for the next chunk; -1 for all.
            att_mask: (1, 1, history + chunk) bool, for caches that are only partly filled.

        Returns:
            (1, chunk, dim), the next att_cache and the next cnn_cache.
        """
        self._require_streaming()
        x = feats if self.global_cmvn is None else self.global_cmvn(feats)
        x, _ = self.embed(x, offset)
        history = 0 if att_cache is None else att_cache.size(2)
        positions = self.embed.pos_enc.at(offset - history, history + x.size(1))
        att_caches, cnn_caches = [], []
        for i, layer in enumerate(self.encoders):
            own_att = None if att_cache is None else att_cache[i : i + 1]
            own_cnn = cnn_cache[i] if cnn_cache is not None and cnn_cache.size(-1) else None
            x, new_att, new_cnn = layer(x, att_mask, positions, None, own_att, own_cnn)
            keep = new_att.size(2) if left_context < 0 else min(left_context, new_att.size(2))
            att_caches.append(new_att[:, :, new_att.size(2) - keep :])
            cnn_caches.append(new_cnn[None])
        return self._finish(x), torch.cat(att_caches), torch.cat(cnn_caches)

    def forward_chunk_by_chunk(self, feats: Tensor, chunk: int, left_chunks: int = -1) -> Tensor:
        """(1, frames, mel) -> (1, frames', dim), streamed with growing caches; the last chunk may be short."""
        rate, context = self.config.subsampling, self.config.right_context + 1
        window = (chunk - 1) * rate + context
        att_cache = cnn_cache = None
        outputs: list[Tensor] = []
        offset = 0
        for start in range(0, feats.size(1) - context + 1, chunk * rate):
            y, att_cache, cnn_cache = self.forward_chunk(
                feats[:, start : start + window], offset, att_cache, cnn_cache, chunk * left_chunks
            )
            outputs.append(y)
            offset += y.size(1)
        return torch.cat(outputs, 1)

    def _require_streaming(self) -> None:
        if reason := self.config.why_not_streaming():
            raise ValueError(f"this model cannot stream: {reason}; use full context (chunk -1)")
