"""Boolean masks, True = attend (``wenet/utils/mask.py``; U2, arXiv 2012.05481, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(batch, 1, size): True on the first ``lengths[b]`` positions."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None]


def causal_mask(size: int, device: torch.device | None = None) -> Tensor:
    """(1, size, size): position i sees 0..i."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()[None]


def chunk_mask(size: int, chunk: int, left_chunks: int = -1, device: torch.device | None = None) -> Tensor:
    """(1, size, size): a frame sees its whole chunk and ``left_chunks`` chunks before it (-1: all)."""
    index = torch.arange(size, device=device) // chunk
    query, key = index[:, None], index[None]
    mask = key <= query
    if left_chunks >= 0:
        mask = mask & (key >= query - left_chunks)
    return mask[None]


def random_chunk(size: int, max_chunk: int, left: bool, generator: torch.Generator | None = None) -> tuple[int, int]:
    """(chunk, left_chunks) for one training batch: full context half of the time, else 1..max_chunk frames.

    The distribution is WeNet's (``add_optional_chunk_mask``); a chunk of -1 means full context. ``left``
    draws a random number of left chunks too (``use_dynamic_left_chunk``).
    """
    if size < 2:
        return -1, -1
    draw = int(torch.randint(1, size, (1,), generator=generator))
    if draw > size // 2:
        return -1, -1
    chunk = draw % max_chunk + 1
    most = (size - 1) // chunk
    left_chunks = int(torch.randint(0, most, (1,), generator=generator)) if left and most > 0 else -1
    return chunk, left_chunks
