"""The U2++ model: shared encoder, CTC, bidirectional attention decoder (arXiv 2106.05642, 2404.16407)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.model.config import ModelConfig
from edge.model.decoder import BiTransformerDecoder, TransformerDecoder
from edge.model.embedding import GlobalCmvn
from edge.model.encoder import Encoder
from edge.model.masks import random_chunk

PADDING = -1  # in target token batches


class Ctc(nn.Module):
    """One linear layer from encoder frames to tokens."""

    def __init__(self, dim: int, vocab: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(dim, vocab)

    def forward(self, encoder_out: Tensor) -> Tensor:
        """(batch, frames, dim) -> log-probabilities (batch, frames, vocab)."""
        return functional.log_softmax(self.ctc_lo(encoder_out), dim=-1)


@dataclass(frozen=True)
class Losses:
    """Scalars of one batch; ``attention`` is None while only CTC is trained."""

    total: Tensor
    ctc: Tensor
    attention: Tensor | None


class U2pp(nn.Module):
    """Torch reference of everything the graphs compute, and the training losses."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.output_size
        cmvn = None
        if config.use_cmvn:
            cmvn = GlobalCmvn(torch.zeros(config.input_dim), torch.ones(config.input_dim))
        self.encoder = Encoder(config.encoder, config.input_dim, cmvn)
        self.decoder: BiTransformerDecoder | TransformerDecoder | None
        if config.decoder is None:
            self.decoder = None
        elif config.decoder.bidirectional:
            self.decoder = BiTransformerDecoder(config.decoder, config.vocab_size, dim)
        else:
            self.decoder = TransformerDecoder(config.decoder, config.vocab_size, dim, config.decoder.num_blocks)
        self.ctc = Ctc(dim, config.vocab_size)

    def _decode(
        self, memory: Tensor, mask: Tensor | None, left: Tensor, right: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.decoder, BiTransformerDecoder):
            return (
                self.decoder.left_decoder(memory, mask, left, lengths),
                self.decoder.right_decoder(memory, mask, right, lengths),
            )
        if self.decoder is None:
            raise ValueError("this model has no attention decoder (train.yaml: decoder: null); use CTC alone")
        return self.decoder(memory, mask, left, lengths), None

    def forward_attention_decoder(self, hyps: Tensor, hyps_lens: Tensor, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of hypotheses in both directions (WeNet's method of the same name).

        Args:
            hyps: (n, u) int64, sos first, padded with eos.
            hyps_lens: (n,) int64, including sos.
            encoder_out: (1, frames, dim).

        Returns:
            score and r_score, (n, u, vocab); r_score is zeros without a right-to-left decoder.
        """
        reverse = self._reverse(hyps, hyps_lens)
        left, right = self._decode(encoder_out, None, hyps, reverse, hyps_lens)
        score = left.log_softmax(-1)
        return score, torch.zeros_like(score) if right is None else right.log_softmax(-1)

    def _reverse(self, hyps: Tensor, lengths: Tensor) -> Tensor:
        """sos, then each row's tokens backwards, then eos."""
        index = torch.arange(hyps.size(1), device=hyps.device)[None]
        source = (lengths[:, None] - index).clamp(min=0, max=hyps.size(1) - 1)
        tokens = hyps.gather(1, torch.where(index == 0, torch.zeros_like(source), source))
        return torch.where(index < lengths[:, None], tokens, torch.full_like(tokens, self.config.eos))

    def losses(
        self,
        feats: Tensor,
        feat_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        *,
        ctc_weight: float | None = None,
        chunk: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Losses:
        """CTC and label-smoothed attention losses of one batch under a chunk mask.

        Args:
            feats: (batch, frames, mel); feat_lengths (batch,).
            tokens: (batch, tokens) int64 padded with PADDING; token_lengths (batch,).
            ctc_weight: instead of the configuration's; 1.0 leaves the decoder out.
            chunk: encoder frames per chunk, -1 for full context; None: drawn when ``encoder.use_dynamic_chunk``.
            generator: source of the drawn chunk.

        Losses are sums over a sentence, averaged over the batch, as WeNet's ``asr_model.py``.
        """
        loss, encoder = self.config.loss, self.config.encoder
        weight = loss.ctc_weight if ctc_weight is None else ctc_weight
        left = -1
        if chunk is None and encoder.use_dynamic_chunk:
            frames = feats.size(1) // encoder.subsampling
            chunk, left = random_chunk(frames, 100 // encoder.subsampling, encoder.use_dynamic_left_chunk, generator)
        memory, valid = self.encoder(feats, feat_lengths, -1 if chunk is None else chunk, left)
        log_probs = self.ctc(memory).transpose(0, 1)
        ctc = functional.ctc_loss(
            log_probs,
            tokens.clamp(min=0),
            valid.squeeze(1).sum(1),
            token_lengths,
            blank=self.config.blank,
            reduction="sum",
            zero_infinity=True,
        ) / len(feats)
        if weight >= 1.0 or self.decoder is None:
            return Losses(ctc, ctc, None)
        left_in, left_out = self._targets(tokens, token_lengths)
        # Reversing a target is reversing its input row without sos.
        flipped = self._reverse(left_in, token_lengths + 1)[:, 1:]
        positions = torch.arange(flipped.size(1), device=tokens.device)
        right_in, right_out = self._targets(
            flipped.masked_fill(positions >= token_lengths[:, None], PADDING), token_lengths
        )
        forward, backward = self._decode(memory, valid, left_in, right_in, token_lengths + 1)
        attention = self._smoothed(forward, left_out)
        if backward is not None and loss.reverse_weight > 0:
            backward_loss = self._smoothed(backward, right_out)
            attention = (1 - loss.reverse_weight) * attention + loss.reverse_weight * backward_loss
        return Losses(weight * ctc + (1 - weight) * attention, ctc, attention)

    def _targets(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder input (sos + tokens, eos padding) and output (tokens + eos, PADDING), one longer than tokens."""
        padded = functional.pad(tokens, (0, 1), value=PADDING)
        output = padded.scatter(1, lengths[:, None], self.config.eos)
        inputs = functional.pad(tokens, (1, 0), value=self.config.sos)
        return inputs.masked_fill(inputs == PADDING, self.config.eos), output

    def _smoothed(self, logits: Tensor, target: Tensor) -> Tensor:
        """Label-smoothed Kullback-Leibler loss; smoothing is spread over the other tokens (WeNet)."""
        loss = self.config.loss
        keep = target != PADDING
        log_probs = logits.log_softmax(-1)[keep]
        smooth = torch.full_like(log_probs, loss.lsm_weight / (logits.size(-1) - 1))
        smooth.scatter_(1, target[keep][:, None], 1.0 - loss.lsm_weight)
        total = functional.kl_div(log_probs, smooth, reduction="sum")
        return total / (keep.sum() if loss.length_normalized_loss else len(logits))
