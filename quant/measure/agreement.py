"""Does the router still choose the same experts? Two bundles on the same audio, layer by layer, frame by frame.

A quantized mixture of experts can fail where a dense model cannot: a small error in front of a router sends a frame
through other experts. The encoder graphs of both bundles are run with the choices of every router as extra outputs;
nothing else in them changes. No torch: any device that runs the bundles can measure this (it needs ``onnx``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.corpus import Utterance, spread
from edge.runtime.bundle import Bundle
from edge.runtime.errors import BundleError
from edge.runtime.features import recording_features
from edge.runtime.manifest import Manifest
from quant.measure.routing import Floats, Routed, RoutedEncoder, modes

NEAR_TIE = 0.1
"""Router logits closer than this are a near-tie: the two experts would get weights within 10 % of each other."""

Progress = Callable[[int, int], None]
"""Called with utterances done and utterances in all."""


@dataclass(frozen=True)
class LayerAgreement:
    """One MoE layer. The gap is between the k-th and the next router logit of the baseline, k experts being active."""

    layer: str
    frames: int
    set_same: float  # share of frames whose set of experts is unchanged
    best_same: float  # share of frames whose best expert is unchanged
    median_gap: float | None  # over all frames; None: all experts are always active
    flipped_gap: float | None  # median over the frames whose set changed; None: there were none
    near_ties: float | None  # share of the frames whose set changed that were near-ties


@dataclass(frozen=True)
class LogProbError:
    """CTC log-probabilities (natural log) of the bundle against the baseline's. KL divergence is per frame, in nats."""

    frames: int
    largest: float  # absolute difference, over all frames and tokens
    mean: float  # absolute difference
    kl_mean: float
    kl_p95: float
    kl_p99: float
    kl_largest: float
    best_same: float  # share of frames whose most probable token is unchanged


@dataclass(frozen=True)
class ModeAgreement:
    """``mode`` is streaming or full; ``chunk`` encoder frames per chunk, -1 for full context."""

    mode: str
    chunk: int
    layers: tuple[LayerAgreement, ...]  # in the order of the manifest; empty without experts
    log_probs: LogProbError

    @property
    def set_same(self) -> float:
        """Mean over layers; 1 without experts."""
        return float(np.mean([layer.set_same for layer in self.layers])) if self.layers else 1.0

    @property
    def best_same(self) -> float:
        """Mean over layers; 1 without experts."""
        return float(np.mean([layer.best_same for layer in self.layers])) if self.layers else 1.0


@dataclass(frozen=True)
class Agreement:
    """What :func:`measure_agreement` found."""

    baseline: str
    bundle: str
    utterances: int
    seconds: float  # of audio
    active: int  # experts per frame
    modes: tuple[ModeAgreement, ...]

    @property
    def worst(self) -> float:
        """Mean over layers in the worse mode: what the bar of 97 % is about."""
        return min(mode.set_same for mode in self.modes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the derived means are written beside the fields they come from."""
        data = dataclasses.asdict(self)
        for row, mode in zip(data["modes"], self.modes):
            row["set_same"], row["best_same"] = mode.set_same, mode.best_same
        return data


def measure_agreement(
    baseline: Path,
    bundle: Path,
    utterances: Sequence[Utterance],
    limit: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Run both encoders on the same features, in the bundle's own streaming chunk (16) and in full context.

    Args:
        baseline: directory of the fp32 bundle.
        bundle: of the quantized one, from the same checkpoint.
        utterances: what to listen to; features are those of the baseline's manifest, dither included.
        limit: at most this many, evenly spread; 0: all.
        threads: of the engine; None: physical cores, at most 4.
        progress: called after each utterance.

    Raises:
        BundleError: bundles of different models, or no router where the manifest names a layer.
        AudioError: a recording that cannot be read, or none long enough for one encoder frame.
    """
    first, second = Bundle.open(baseline), Bundle.open(bundle)
    check_comparable(first, second)
    manifest = first.manifest
    chosen = spread(list(utterances), limit)
    with RoutedEncoder(first, threads) as one, RoutedEncoder(second, threads) as other:
        tables = {mode: _Table(manifest) for mode in modes(manifest)}
        seconds = 0.0
        for done, utterance in enumerate(chosen, 1):
            features, duration = recording_features(utterance.clip, manifest.features)
            seconds += duration
            for (_, chunk), table in tables.items():
                table.add(one.run(features, chunk), other.run(features, chunk))
            if progress:
                progress(done, len(chosen))
    if not all(table.frames for table in tables.values()):
        raise BundleError("expected recordings of at least one encoder frame, found only shorter ones; add longer ones")
    found = tuple(ModeAgreement(mode, chunk, *table.result()) for (mode, chunk), table in tables.items())
    return Agreement(first.manifest.name, second.manifest.name, len(chosen), seconds, manifest.moe.active, found)


def check_comparable(first: Bundle, second: Bundle) -> None:
    """Raises BundleError unless both bundles come from one checkpoint."""
    one, other = first.manifest, second.manifest
    for field in ("source.sha256", "moe", "tokens", "stream.subsampling", "stream.right_context", "caches"):
        have, want = other, one
        for part in field.split("."):
            have, want = getattr(have, part), getattr(want, part)
        if have != want:
            raise BundleError(
                f"{second.directory}: expected a bundle of the same checkpoint as {first.directory}, found {field} "
                f"{have} and {want}; make both from one: u2edge convert CKPT -o A; u2edge quantize CKPT -o B"
            )


class _Table:
    """Sums over utterances, of one mode."""

    def __init__(self, manifest: Manifest) -> None:
        self._moe = manifest.moe
        self.frames = 0
        self._largest = self._total = 0.0
        self._values = self._same_token = 0
        self._kl: list[NDArray[np.float64]] = []
        self._gaps: list[Floats] = []  # (layers, frames)
        self._set_same: list[NDArray[np.bool_]] = []
        self._best_same: list[NDArray[np.bool_]] = []

    def add(self, want: Routed, have: Routed) -> None:
        p, q = want.log_probs.astype(np.float64), have.log_probs.astype(np.float64)
        if not len(p):
            return
        self.frames += len(p)
        difference = np.abs(p - q)
        self._largest = max(self._largest, float(difference.max()))
        self._total += float(difference.sum())
        self._values += difference.size
        self._same_token += int((p.argmax(1) == q.argmax(1)).sum())
        self._kl.append(kl_divergence(p, q))
        if not self._moe.layers:
            return
        k = self._moe.active
        ordered = -np.sort(-want.logits, axis=-1)
        if k < self._moe.experts:
            self._gaps.append(ordered[..., k - 1] - ordered[..., k])
        else:  # all experts, always: nothing to flip
            self._gaps.append(np.full(want.chosen.shape[:2], np.inf, np.float32))
        self._set_same.append((np.sort(want.chosen, -1) == np.sort(have.chosen, -1)).all(-1))
        self._best_same.append(want.chosen[..., 0] == have.chosen[..., 0])

    def result(self) -> tuple[tuple[LayerAgreement, ...], LogProbError]:
        layers = []
        if self._moe.layers:
            gaps, sets, bests = (np.concatenate(x, axis=1) for x in (self._gaps, self._set_same, self._best_same))
            for name, gap, same, best in zip(self._moe.layers, gaps, sets, bests):
                flipped = gap[~same]
                layers.append(
                    LayerAgreement(
                        layer=name,
                        frames=len(same),
                        set_same=float(same.mean()),
                        best_same=float(best.mean()),
                        median_gap=float(np.median(gap)) if np.isfinite(gap).all() else None,
                        flipped_gap=float(np.median(flipped)) if len(flipped) else None,
                        near_ties=float((flipped < NEAR_TIE).mean()) if len(flipped) else None,
                    )
                )
        kl = np.concatenate(self._kl)
        p95, p99 = np.percentile(kl, (95, 99))
        error = LogProbError(
            frames=self.frames,
            largest=self._largest,
            mean=self._total / self._values,
            kl_mean=float(kl.mean()),
            kl_p95=float(p95),
            kl_p99=float(p99),
            kl_largest=float(kl.max()),
            best_same=self._same_token / self.frames,
        )
        return tuple(layers), error


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p || q) in nats of log-probabilities ``(frames, vocabulary)``, per frame; float32 rounding never below 0."""
    return np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0)
