"""Attention decoders for rescoring: left to right, and right to left (U2++, arXiv 2106.05642, section 2.1).

Names follow ``wenet/models/transformer/decoder.py`` and ``decoder_layer.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from edge.model.attention import MultiHeadedAttention
from edge.model.config import DecoderConfig
from edge.model.embedding import Positions
from edge.model.feedforward import build_feedforward
from edge.model.masks import causal_mask, valid_mask


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder, feed-forward."""

    def __init__(self, c: DecoderConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = MultiHeadedAttention(
            c.attention_heads, dim, c.self_attention_dropout_rate, c.query_bias, c.key_bias, c.value_bias
        )
        self.src_attn = MultiHeadedAttention(
            c.attention_heads, dim, c.src_attention_dropout_rate, c.src_query_bias, c.src_key_bias, c.src_value_bias
        )
        self.feed_forward = build_feedforward(
            c.mlp_type,
            dim,
            c.linear_units,
            c.dropout_rate,
            c.activation_type,
            c.mlp_bias,
            c.n_expert,
            c.n_expert_activated,
        )
        self.norm1 = nn.LayerNorm(dim, c.norm_eps)
        self.norm2 = nn.LayerNorm(dim, c.norm_eps)
        self.norm3 = nn.LayerNorm(dim, c.norm_eps)
        self.dropout = nn.Dropout(c.dropout_rate)
        self.pre_norm = c.normalize_before

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        y = self.norm1(x) if self.pre_norm else x
        x = x + self.dropout(self.self_attn(y, y, mask)[0])
        x = x if self.pre_norm else self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout(self.src_attn(y, memory, memory_mask)[0])
        x = x if self.pre_norm else self.norm2(x)
        y = self.norm3(x) if self.pre_norm else x
        x = x + self.dropout(self.feed_forward(y))
        return x if self.pre_norm else self.norm3(x)


class TransformerDecoder(nn.Module):
    """Scores token sequences given the encoder's output."""

    def __init__(self, c: DecoderConfig, vocab: int, dim: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Embedding(vocab, dim), Positions(dim, c.positional_dropout_rate, True))
        self.after_norm = nn.LayerNorm(dim, c.norm_eps)
        self.output_layer = nn.Linear(dim, vocab)
        self.decoders = nn.ModuleList(DecoderLayer(c, dim) for _ in range(blocks))
        self.pre_norm = c.normalize_before

    def forward(self, memory: Tensor, memory_mask: Tensor | None, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (batch, tokens, vocab) of what follows each position.

        Args:
            memory: (batch, frames, dim); a batch of 1 serves every row of ``tokens``.
            memory_mask: (batch, 1, frames) bool, or None when all frames are valid.
            tokens: (batch, tokens) int64, starting with sos.
            lengths: (batch,) int64, valid tokens including sos.
        """
        size = tokens.size(1)
        mask = valid_mask(lengths, size) & causal_mask(size, tokens.device)
        x, _ = self.embed(tokens)
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        return self.output_layer(self.after_norm(x) if self.pre_norm else x)


class BiTransformerDecoder(nn.Module):
    """A left-to-right and a right-to-left decoder of the same kind."""

    def __init__(self, c: DecoderConfig, vocab: int, dim: int) -> None:
        super().__init__()
        self.left_decoder = TransformerDecoder(c, vocab, dim, c.num_blocks)
        self.right_decoder = TransformerDecoder(c, vocab, dim, c.r_num_blocks)
