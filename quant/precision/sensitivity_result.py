"""What a measurement of sensitivity found. Reading one needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartError:
    """``path`` alone in its precision. ``routing``: share of frames whose set of experts is unchanged, mean over the
    MoE layers after it (of the encoder, or of its decoder); None when there are none."""

    path: str
    precision: str  # as planned, e.g. static; two kinds in one part are joined by +
    kl: float  # mean over frames or tokens, nats
    kl_largest: float
    routing: float | None


@dataclass(frozen=True)
class ExpertError:
    """One expert alone. ``rows``: frames or tokens of these utterances that passed through it; with 0 nothing was
    measured and ``kl`` is 0."""

    layer: str
    expert: int
    precision: str
    borrowed: bool  # its activation scales
    rows: int
    kl: float
    routing: float | None


@dataclass(frozen=True)
class Sensitivity:
    """What :func:`measure_sensitivity` found. ``parts`` and ``experts`` are in the order of the model."""

    checkpoint_sha256: str
    scheme: str
    utterances: int
    seconds: float  # of audio
    frames: int  # of the encoder
    tokens: int  # scored by each decoder
    chunk: int  # encoder frames per chunk; -1: full context
    encoder: PartError  # everything quantized: CTC
    decoder: PartError  # everything quantized: decoder, encoder included
    parts: tuple[PartError, ...]
    experts: tuple[ExpertError, ...]

    def worst(self, count: int = 10) -> list[PartError]:
        """The parts that cost most, worst first."""
        return sorted(self.parts, key=lambda part: -part.kl)[:count]
