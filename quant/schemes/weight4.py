"""weight4: weights alone, experts in 4 bits and everything else in 8."""

from __future__ import annotations

from quant.precision.plan import LayerPlan
from quant.schemes.block_wise import BlockWise


class Weight4(BlockWise):
    """See the module."""

    bits = 4

    def plan(self, path: str, convolution: bool) -> LayerPlan:
        return LayerPlan(self.name if ".experts." in path else "weight8")
