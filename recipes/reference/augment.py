"""Variation of speech in the log-mel domain: cheap enough to be fresh for every utterance of every epoch.

A log-mel frame is the logarithm of band powers, so a microphone's response is an added curve, gain an added
constant, noise an addition of powers, late reverberation a leaky sum over time, another vocal tract a warp
of the mel axis (vocal tract length perturbation, Jaitly and Hinton 2013), and speaking rate a resampling
of time. SpecAugment (arXiv 1904.08779) is applied last.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions

Features = NDArray[np.float32]

SILENCE = -15.94  # log of Kaldi's floor: a frame of digital zeros
QUANTIZED = 5.3  # typical log-mel of 16-bit rounding noise, measured on upsampled 8 kHz recordings


@dataclass(frozen=True)
class AugmentOptions:
    """Ranges of the random draws; log-power units are nepers of power (1 = 4.3 dB)."""

    rate: tuple[float, float] = (0.8, 1.3)  # > 1 is faster speech
    warp: tuple[float, float] = (0.8, 1.3)  # > 1 is a shorter vocal tract
    tilt: float = 2.0  # standard deviation of the response curve, log-power
    gain: tuple[float, float] = (-6.5, 1.5)  # log-power
    low_pass: float = 0.35  # probability of a telephone-like band
    noise: float = 0.7  # probability
    snr: tuple[float, float] = (5.0, 35.0)  # dB
    reverb: float = 0.35  # probability
    dither: float = 0.3  # probability of the noise that the recognizer's dither of one 16-bit step adds
    masks: int = 2  # SpecAugment masks per axis
    mask_bins: int = 12
    mask_frames: int = 12  # at most this many, and at most 8 % of the utterance


LIGHT = AugmentOptions(
    rate=(0.9, 1.15), warp=(0.9, 1.12), tilt=1.0, low_pass=0.2, noise=0.4, snr=(15.0, 40.0), reverb=0.1, masks=0
)

MEDIUM = AugmentOptions(
    rate=(0.85, 1.2),
    warp=(0.85, 1.25),
    tilt=1.6,
    low_pass=0.3,
    noise=0.5,
    snr=(8.0, 40.0),
    reverb=0.25,
    masks=1,
)


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


_BINS = 80
_EDGES = np.linspace(_mel(np.array(20.0)), _mel(np.array(8000.0)), _BINS + 2)
CENTRES = 700.0 * np.expm1(_EDGES[1:-1] / 1127.0)  # Hz of each mel bin


def change_rate(x: Features, factor: float) -> Features:
    """Resample time linearly; (frames, mel) -> (frames / factor, mel)."""
    size = max(1, round(len(x) / factor))
    at = np.linspace(0, len(x) - 1, size)
    low = np.minimum(at.astype(int), len(x) - 2) if len(x) > 1 else np.zeros(size, int)
    weight = (at - low).astype(np.float32)[:, None]
    return x[low] * (1 - weight) + x[np.minimum(low + 1, len(x) - 1)] * weight


def warp_frequency(x: Features, alpha: float) -> Features:
    """Move content at f Hz to alpha * f, compressing towards 8 kHz above 4800 / max(alpha, 1) Hz."""
    knee = 4800.0 * min(1.0, 1.0 / alpha)
    target = np.where(
        knee * alpha >= CENTRES,
        CENTRES / alpha,
        8000.0 - (8000.0 - knee) * (8000.0 - CENTRES) / (8000.0 - knee * alpha),
    )
    source = np.clip((_mel(target) - _EDGES[1]) / (_EDGES[2] - _EDGES[1]), 0, _BINS - 1)
    low = np.minimum(source.astype(int), _BINS - 2)
    weight = (source - low).astype(np.float32)
    return x[:, low] * (1 - weight) + x[:, low + 1] * weight


def response(rng: np.random.Generator, sigma: float) -> Features:
    """(mel,) a smooth random curve: a few cosines over the mel axis, tilt first."""
    axis = np.linspace(0, np.pi, _BINS)
    curve = sum(rng.normal(0, sigma / k) * np.cos(k * axis + rng.uniform(-0.6, 0.6)) for k in range(1, 5))
    return np.asarray(curve, dtype=np.float32)


def low_pass(x: Features, cutoff: float, slope: float) -> Features:
    """Attenuate above ``cutoff`` Hz by ``slope`` log-power per 1000 Hz."""
    return x - (np.clip(CENTRES - cutoff, 0, None) / 1000.0 * slope).astype(np.float32)


def reverberate(x: Features, t60: float, level: float) -> Features:
    """Add an exponential tail of T60 ``t60`` seconds, ``level`` in log-power against the direct sound."""
    decay = 10.0 ** (-6 * 0.01 / t60)
    power = np.exp(x)
    tail = np.zeros_like(power)
    state = np.zeros(x.shape[1], dtype=np.float32)
    for i in range(len(x)):  # a first-order filter over frames
        tail[i] = state
        state = decay * state + (1 - decay) * power[i]
    return np.log(power + np.exp(level) * tail + 1e-7)


def add_noise(x: Features, noise: Features, snr: float) -> Features:
    """Add ``noise`` (frames, mel) so that loud speech frames stand ``snr`` dB above it."""
    speech = np.log(np.exp(np.sort(x.max(1))[len(x) // 2 :]).mean() + 1e-7)
    level = np.log(np.exp(noise.max(1)).mean() + 1e-7)
    return np.logaddexp(x, noise + np.float32(speech - level - snr / 4.343))


def stationary_noise(rng: np.random.Generator, frames: int) -> Features:
    """(frames, mel) coloured noise: a smooth spectrum with the jitter of short-time power estimates."""
    jitter = np.log(rng.gamma(6.0, 1 / 6.0, (frames, _BINS)))
    return (response(rng, 3.0) + np.linspace(0, rng.uniform(-2, 4), _BINS) + jitter).astype(np.float32)


def no_speech(rng: np.random.Generator, frames: int) -> Features:
    """(frames, mel) a room in which nobody speaks: hiss of any colour, from digital silence to the level of speech.

    The jitter of its frames is that of real noise, whose windows overlap.
    """
    if rng.random() < 0.1:
        return np.full((frames, _BINS), SILENCE, dtype=np.float32)
    hiss = dither_frames()
    start = int(rng.integers(len(hiss)))
    x = np.take(hiss, range(start, start + frames), axis=0, mode="wrap")
    colour = response(rng, rng.uniform(0, 3.0)) + np.linspace(0, rng.uniform(-3, 3), _BINS)
    return (x + colour + rng.uniform(-4, 12)).astype(np.float32)


def mask(x: Features, rng: np.random.Generator, options: AugmentOptions) -> Features:
    """SpecAugment: a few bands and spans replaced by the mean."""
    x, mean = x.copy(), x.mean()
    for _ in range(options.masks):
        width = int(rng.integers(0, options.mask_bins + 1))
        start = int(rng.integers(0, _BINS - width + 1))
        x[:, start : start + width] = mean
        width = int(rng.integers(0, max(1, min(options.mask_frames, len(x) // 12)) + 1))
        start = int(rng.integers(0, len(x) - width + 1))
        x[start : start + width] = mean
    return x


@functools.cache
def dither_frames() -> Features:
    """(frames, mel) of 20 s of white noise of one 16-bit step."""
    noise = np.random.default_rng(0).normal(0, 1 / 32768, 20 * 16000).astype(np.float32)
    return StreamingFbank(FeatureOptions()).accept(noise)


def silence(x: Features, silent: NDArray[np.bool_], rng: np.random.Generator) -> Features:
    """Make ``silent`` (frames,) frames digital silence, or faint noise as often.

    The frame beside speech keeps some of its energy, as a 25 ms window over the edge would.
    """
    if rng.random() < 0.5:
        gap = np.full(x.shape, SILENCE, dtype=np.float32)
    else:
        gap = (rng.uniform(0, 10) + np.log(rng.gamma(6.0, 1 / 6.0, x.shape))).astype(np.float32)
    out = np.where(silent[:, None], gap, x)
    for i in np.flatnonzero(silent[1:] != silent[:-1]):
        speech, edge = (i, i + 1) if silent[i + 1] else (i + 1, i)
        out[edge] = np.maximum(gap[edge], x[speech] - np.float32(rng.uniform(0.3, 6.0)))
    return out


def augment(
    x: Features,
    rng: np.random.Generator,
    options: AugmentOptions,
    noise: Features | None = None,
    silent: NDArray[np.bool_] | None = None,
) -> Features:
    """One random variation of ``x``.

    Args:
        x: (frames, mel).
        rng: source of all draws.
        options: their ranges.
        noise: recorded noise (any frames, mel) to mix in, or None.
        silent: (frames,) where the result falls silent, whatever noise the speech has: recordings that were
            trimmed and joined sound like that, and their edges must not pass for plosives.
    """
    rate = rng.uniform(*options.rate)
    x = change_rate(x, rate)
    if silent is not None:
        silent = change_rate(silent.astype(np.float32)[:, None], rate)[:, 0] > 0.5
    x = warp_frequency(x, rng.uniform(*options.warp))
    x = x + response(rng, options.tilt)
    if rng.random() < options.reverb:
        x = reverberate(x, rng.uniform(0.15, 0.7), rng.uniform(-2.0, 1.0))
    if rng.random() < options.noise:
        if noise is None or rng.random() < 0.5:
            noise = stationary_noise(rng, len(x))
        repeats = -(-len(x) // len(noise))
        noise = np.tile(noise, (repeats, 1))[: len(x)]
        x = add_noise(x, noise, rng.uniform(*options.snr))
    if rng.random() < options.low_pass:
        x = low_pass(x, rng.uniform(2800, 5500), rng.uniform(3, 15))
    x = x + np.float32(rng.uniform(*options.gain))
    if rng.random() < 0.6:  # stored in 16 bits somewhere on its way
        x = np.logaddexp(
            x, np.float32(QUANTIZED + rng.normal(0, 0.4)) + rng.normal(0, 0.25, x.shape).astype(np.float32)
        )
    if silent is not None:
        x = silence(x, silent, rng)
    if rng.random() < options.dither:
        floor = dither_frames()
        start = int(rng.integers(len(floor)))
        x = np.logaddexp(x, np.take(floor, range(start, start + len(x)), axis=0, mode="wrap"))
    x = np.maximum(x, np.float32(SILENCE))
    return mask(x, rng, options).astype(np.float32)
