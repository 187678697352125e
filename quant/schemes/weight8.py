"""weight8: weights alone, in 8 bits."""

from __future__ import annotations

from quant.schemes.block_wise import BlockWise


class Weight8(BlockWise):
    """See the module."""

    bits = 8
