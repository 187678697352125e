"""Feed-forward layers: dense, and a mixture of experts (arXiv 2404.16407, section 2.2).

Parameter names are those of ``wenet/models/transformer/positionwise_feed_forward.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "swish": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "selu": nn.SELU,
}


class FeedForward(nn.Module):
    """(..., dim) -> (..., dim) through ``hidden`` units."""

    def __init__(self, dim: int, hidden: int, dropout: float, activation: str, bias: bool) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.w_2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class MoeFeedForward(nn.Module):
    """Each frame passes through its ``active`` best experts of ``experts``, weighted by the router.

    The router's logits choose the experts; the softmax is over the chosen logits only, in float32.
    Frames are sorted by expert so that every expert is one matrix product over its own frames
    and an expert without frames costs nothing.
    """

    def __init__(
        self, dim: int, hidden: int, dropout: float, activation: str, bias: bool, experts: int, active: int
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(dim, hidden, dropout, activation, bias) for _ in range(experts))
        self.active = active

    def route(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Expert ids (n, active) int64 and their weights (n, active) for ``frames`` (n, dim)."""
        logits, chosen = self.gate(frames).topk(self.active, dim=-1)
        return chosen, logits.float().softmax(dim=-1).to(frames.dtype)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.reshape(-1, x.size(-1))
        chosen, weights = self.route(frames)
        flat = chosen.reshape(-1)  # slot s belongs to frame s // active
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=len(self.experts)).tolist()
        rows = frames.index_select(0, order // self.active).split(counts)
        results = torch.cat([expert(own) for expert, own in zip(self.experts, rows) if len(own)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        results = results.index_select(0, back).view(len(frames), self.active, -1)
        return (results * weights.unsqueeze(-1)).sum(1).view(x.shape)


def build_feedforward(
    kind: str, dim: int, hidden: int, dropout: float, activation: str, bias: bool, experts: int, active: int
) -> nn.Module:
    """The layer that ``mlp_type`` names."""
    if kind == "moe":
        return MoeFeedForward(dim, hidden, dropout, activation, bias, experts, active)
    return FeedForward(dim, hidden, dropout, activation, bias)
