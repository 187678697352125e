"""Conformer convolution module (arXiv 2005.08100, section 2.2; ``wenet/models/transformer/convolution.py``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.model.feedforward import ACTIVATIONS


class ConvolutionModule(nn.Module):
    """Pointwise, gated, depthwise, norm, pointwise. Causal when asked: then it streams with a cache."""

    def __init__(
        self, channels: int, kernel: int, activation: str, norm: str, causal: bool, bias: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.context = kernel - 1 if causal else 0
        self.pointwise_conv1 = nn.Conv1d(channels, 2 * channels, 1, bias=bias)
        padding = 0 if causal else (kernel - 1) // 2
        self.depthwise_conv = nn.Conv1d(channels, channels, kernel, padding=padding, groups=channels, bias=bias)
        self.channels_last = norm == "layer_norm"
        self.norm = nn.LayerNorm(channels, norm_eps) if self.channels_last else nn.BatchNorm1d(channels, norm_eps)
        self.pointwise_conv2 = nn.Conv1d(channels, channels, 1, bias=bias)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, valid: Tensor | None, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (batch, frames, dim), valid (batch, 1, frames), cache (batch, dim, kernel - 1) -> x, next cache.

        The cache holds inputs of the first pointwise convolution, as WeNet's does; None means zeros.
        """
        x = x.transpose(1, 2)
        if valid is not None:
            x = x.masked_fill(~valid, 0.0)
        if self.context:
            x = functional.pad(x, (self.context, 0)) if cache is None else torch.cat([cache, x], 2)
            cache = x[:, :, -self.context :]
        else:
            cache = x.new_zeros(x.size(0), x.size(1), 0)
        x = functional.glu(self.pointwise_conv1(x), dim=1)
        x = self.depthwise_conv(x)
        if self.channels_last:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = self.norm(x)
        x = self.pointwise_conv2(self.activation(x))
        if valid is not None:
            x = x.masked_fill(~valid, 0.0)
        return x.transpose(1, 2), cache
