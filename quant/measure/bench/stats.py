"""Latencies of one bundle, and the ratio of two that were measured in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spread:
    """Distribution of a latency in ms."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Ratio:
    """Bundle / baseline; below 1 the bundle needs less. ``low``, ``high``: 95 % interval of a bootstrap over loads and
    blocks of neighbouring pairs; None for what is measured once."""

    value: float
    low: float | None = None
    high: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    p50, p95, p99 = (float(p) for p in np.percentile(values, [50, 95, 99]))
    return Spread(len(values), float(np.mean(values)), p50, p95, p99)


def ratio(
    new: Sequence[float],
    old: Sequence[float],
    statistic: Callable[..., Any] = np.median,
    loads: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Ratio:
    """statistic(new) / statistic(old) with a 95 % interval.

    Two things make measurements alike: neighbours share what disturbed them, and all of one load of the graphs share
    where its weights came to lie (a bundle against itself differed by 5 % and more from load to load). So loads are
    drawn with replacement, and within each, blocks of n^(1/3) neighbouring pairs (circular block bootstrap; Politis and
    Romano 1992, block length after Hall, Horowitz and Jing 1995). With few loads the interval is too narrow.

    Args:
        new, old: pairs (n,), n > 0, in the order they were measured.
        statistic: np.median or np.sum.
        loads: number of the load of each pair (n,), rising; None: all of one.
        resamples: draws.
        seed: of the draws.
    """
    a, b = np.asarray(new, np.float64), np.asarray(old, np.float64)
    _, firsts, counts = np.unique(np.zeros(len(a)) if loads is None else loads, return_index=True, return_counts=True)
    random, drawn = np.random.default_rng(seed), np.empty(resamples)
    for at in range(resamples):
        groups = random.integers(0, len(counts), len(counts))
        index = np.concatenate([firsts[g] + _blocks(int(counts[g]), random) for g in groups])
        drawn[at] = statistic(a[index]) / statistic(b[index])
    low, high = (float(p) for p in np.percentile(drawn, [2.5, 97.5]))
    return Ratio(float(statistic(a) / statistic(b)), low, high)


def _blocks(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """``count`` positions of 0..count-1 in blocks of neighbours that begin anywhere."""
    length = math.ceil(count ** (1 / 3))
    starts = random.integers(0, count, (math.ceil(count / length), 1))
    index: NDArray[np.int64] = ((starts + np.arange(length)) % count).ravel()[:count]
    return index
