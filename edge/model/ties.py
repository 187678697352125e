"""``tie_word_embedding: true``: the embedding of a decoder is its output layer too, and savers may keep one of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edge.model.settings import section

_EMBED, _OUT = "embed.0.weight", "output_layer.weight"


def untie(state: dict[str, Tensor], data: dict[str, Any]) -> dict[str, Tensor]:
    """``state`` with both matrices of every tied decoder, as WeNet's ``tie_or_clone_weights`` makes them after loading:
    the embedding is what counts, the output layer stands in for one that was left out."""
    if not section(data, "decoder_conf").get("tie_word_embedding"):
        return state
    tied = dict(state)
    for side in ("decoder.", "decoder.left_decoder.", "decoder.right_decoder."):
        one = tied.get(side + _EMBED, tied.get(side + _OUT))
        if one is not None:
            tied[side + _EMBED] = tied[side + _OUT] = one
    return tied
