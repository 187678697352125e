"""The three models of arXiv 2404.16407, table 1, at a scale that can be trained on a desk.

Dense-S, the mixture whose experts are the size of Dense-S's feed-forward layers, and Dense-L with as many parameters
as the mixture. A frame costs the mixture two experts of each layer instead of one feed-forward layer.
"""

from __future__ import annotations

import copy
from typing import Any

NAMES = ("dense-s", "moe", "dense-l")


def configuration(base: dict[str, Any], name: str) -> dict[str, Any]:
    """The train.yaml of one of :data:`NAMES`, made from the mixture's.

    Raises:
        ValueError: another name, or ``base`` is not a mixture.
    """
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, found {name!r}")
    made = copy.deepcopy(base)
    for part in ("encoder_conf", "decoder_conf"):
        options = made[part]
        if options.get("mlp_type") != "moe":
            raise ValueError(f"{part}.mlp_type: expected moe, found {options.get('mlp_type')!r}")
        if name == "moe":
            continue
        experts = options.pop("n_expert")
        options.pop("n_expert_activated")
        options["mlp_type"] = "position_wise_feed_forward"
        if name == "dense-l":  # the router, dim x experts, is all that the mixture has beyond it
            options["linear_units"] *= experts
    return made
