"""Convolutional subsampling and sinusoidal positions.

Sources: ``wenet/models/transformer/subsampling.py`` and ``embedding.py``; arXiv 1706.03762, section 3.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edge.runtime.manifest import MAX_POSITIONS


def sinusoids(positions: int, dim: int) -> Tensor:
    """(positions, dim) float32: sine on even channels, cosine on odd ones."""
    angle = torch.arange(positions, dtype=torch.float32)[:, None] * torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32) * -(math.log(10000.0) / dim)
    )
    return torch.stack([angle.sin(), angle.cos()], dim=-1).view(positions, -1)[:, :dim]


class Positions(nn.Module):
    """Scales by sqrt(dim) and gives positions; ``absolute`` also adds them to the input.

    The table is WeNet's buffer ``pe``; it is rebuilt rather than read from checkpoints.
    """

    pe: Tensor

    def __init__(self, dim: int, dropout: float, absolute: bool) -> None:
        super().__init__()
        self.scale, self.absolute = math.sqrt(dim), absolute
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pe", sinusoids(MAX_POSITIONS, dim)[None])

    def at(self, start: int, size: int) -> Tensor:
        """(1, size, dim) for positions start, start + 1, …; below zero (hidden padding) reads as zero."""
        if start + size > self.pe.size(1):
            raise ValueError(
                f"expected positions below {self.pe.size(1)}, found {start + size}; "
                "cut the utterance (endpointing) before that"
            )
        if start >= 0:
            return self.pe[:, start : start + size]
        return self.pe[:, torch.arange(start, start + size, device=self.pe.device).clamp(min=0)]

    def forward(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
        """x (batch, frames, dim) and the positions (1, frames, dim) that go with it."""
        positions = self.at(offset, x.size(1))
        x = x * self.scale
        if self.absolute:
            x = x + positions
        return self.dropout(x), self.dropout(positions)


class NoPositions(Positions):
    """``pos_enc_layer_type: no_pos``: the input as it is, and zeros for positions."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__(dim, dropout, absolute=False)
        self.scale = 1.0

    def at(self, start: int, size: int) -> Tensor:
        """(1, size, dim) zeros."""
        return torch.zeros_like(super().at(start, size))


_CONVOLUTIONS = {  # (kernel, stride) per layer
    "conv2d": ((3, 2), (3, 2)),
    "conv2d6": ((3, 2), (5, 3)),
    "conv2d8": ((3, 2), (3, 2), (3, 2)),
}


class Conv2dSubsampling(nn.Module):
    """(batch, frames, mel) -> (batch, about frames / rate, dim), rate 4, 6 or 8."""

    def __init__(self, kind: str, mel: int, dim: int, positions: Positions) -> None:
        super().__init__()
        self.layers = _CONVOLUTIONS[kind]
        modules: list[nn.Module] = []
        channels, width = 1, mel
        for kernel, stride in self.layers:
            modules += [nn.Conv2d(channels, dim, kernel, stride), nn.ReLU()]
            channels, width = dim, (width - kernel) // stride + 1
        self.conv = nn.Sequential(*modules)
        linear = nn.Linear(dim * width, dim)
        if kind == "conv2d":  # WeNet wraps this one in a Sequential named ``out``
            self.out: nn.Module = nn.Sequential(linear)
        else:
            self.linear = linear
        self.wrapped = kind == "conv2d"
        self.pos_enc = positions

    def subsample(self, valid: Tensor) -> Tensor:
        """The mask (batch, 1, frames) at the rate of the output."""
        for kernel, stride in self.layers:
            valid = valid[:, :, kernel - 1 :: stride]
        return valid

    def forward(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
        """Embedded frames (batch, frames', dim) and their positions (1, frames', dim)."""
        x = self.conv(x.unsqueeze(1))
        x = x.transpose(1, 2).reshape(x.size(0), x.size(2), -1)
        return self.pos_enc(self.out(x) if self.wrapped else self.linear(x), offset)


class GlobalCmvn(nn.Module):
    """Subtracts the mean and multiplies by the inverse standard deviation, per mel channel."""

    mean: Tensor
    istd: Tensor

    def __init__(self, mean: Tensor, istd: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("istd", istd)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.istd
