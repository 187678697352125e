"""Multi-head attention, plain and with relative positions (``wenet/models/transformer/attention.py``).

The relative form is Transformer-XL's (arXiv 1901.02860, section 3.3) without the shift: WeNet dropped
it, so the positional term depends on the key's position alone and streams without special care.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MultiHeadedAttention(nn.Module):
    """Scaled dot-product attention over ``heads`` heads of ``dim // heads`` channels."""

    def __init__(
        self,
        heads: int,
        dim: int,
        dropout: float,
        query_bias: bool = True,
        key_bias: bool = True,
        value_bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.linear_q = nn.Linear(dim, dim, bias=query_bias)
        self.linear_k = nn.Linear(dim, dim, bias=key_bias)
        self.linear_v = nn.Linear(dim, dim, bias=value_bias)
        self.linear_out = nn.Linear(dim, dim, bias=query_bias)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, heads, frames, head_dim)."""
        return x.view(x.size(0), -1, self.heads, self.head_dim).transpose(1, 2)

    def project(self, query: Tensor, memory: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads of query, key, value, and the new cache (batch, heads, frames, 2 * head_dim)."""
        key, value = self.split(self.linear_k(memory)), self.split(self.linear_v(memory))
        if cache is not None and cache.size(2):
            old_key, old_value = cache.chunk(2, dim=-1)
            key, value = torch.cat([old_key, key], 2), torch.cat([old_value, value], 2)
        return self.split(self.linear_q(query)), key, value, torch.cat([key, value], -1)

    def attend(self, scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax of scores (batch, heads, queries, keys) under mask (batch, 1 | queries, keys), times value."""
        scores = scores / math.sqrt(self.head_dim)
        if mask is None:
            weights = scores.float().softmax(-1).to(value)
        else:
            hidden = ~mask.unsqueeze(1)
            scores = scores.masked_fill(hidden, -math.inf)
            # A row with nothing to attend to (padding) is NaN after softmax; the second fill makes it zero.
            weights = scores.float().softmax(-1).to(value).masked_fill(hidden, 0.0)
        out = (self.dropout(weights) @ value).transpose(1, 2)
        return self.linear_out(out.reshape(out.size(0), out.size(1), -1))

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        positions: Tensor | None = None,
        cache: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns (batch, queries, dim) and the cache (batch, heads, keys, 2 * head_dim)."""
        q, k, v, new_cache = self.project(query, memory, cache)
        return self.attend(q @ k.transpose(-2, -1), v, mask), new_cache


class RelPositionMultiHeadedAttention(MultiHeadedAttention):
    """Adds a learned content bias and a positional term per key."""

    def __init__(
        self,
        heads: int,
        dim: int,
        dropout: float,
        query_bias: bool = True,
        key_bias: bool = True,
        value_bias: bool = True,
    ) -> None:
        super().__init__(heads, dim, dropout, query_bias, key_bias, value_bias)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, self.head_dim))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        positions: Tensor | None = None,
        cache: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``positions`` is (1, keys, dim); otherwise as the base class."""
        assert positions is not None, "relative attention needs the positions of its keys"
        q, k, v, new_cache = self.project(query, memory, cache)
        p = self.split(self.linear_pos(positions))
        content = (q + self.pos_bias_u[:, None]) @ k.transpose(-2, -1)
        position = (q + self.pos_bias_v[:, None]) @ p.transpose(-2, -1)
        return self.attend(content + position, v, mask), new_cache


ATTENTION = {"selfattn": MultiHeadedAttention, "rel_selfattn": RelPositionMultiHeadedAttention}
