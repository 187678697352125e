"""Choosing recordings so that the rarest expert is met often.

A quick pass counts, for every recording of a pool, the frames that each expert of the encoder gets. Then recordings
are taken greedily, each the one that adds most to ``sum(-1 / (1 + frames) ** 2)`` over all experts: a concave
function, so what an expert gains counts the more the less it has, and almost only the rarest matter. (Measured on
2,000 recordings: logarithm and square root favour long recordings and leave the rarest experts with half as much;
exchanging recordings afterwards gains nothing.)
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from calibration.collect import CalibrationError, RoutingCounter, load_features, supported_chunks
from calibration.corpus import Utterance, spread, tolerated
from calibration.profile import DEFAULT_RULE, CalibrationOptions, CoverageRule
from calibration.run import DEFAULT_OPTIONS, SAVE_EVERY, interruptible, short
from edge.model.checkpoint import Experiment, opened
from edge.runtime.errors import AudioError
from edge.system.console import Say, silent
from edge.system.files import replacing
from edge.system.progress import Ticker

Counts = NDArray[np.int64]
"""(recordings, layers, experts): frames that each expert of the encoder gets."""


@dataclass(frozen=True)
class Choice:
    """Recordings chosen from a pool, and what the experts see of them: (layers, experts) int64.

    ``before`` is of as many recordings evenly spread over the pool, ``after`` of the chosen ones.
    """

    utterances: list[Utterance]
    layers: list[str]
    active: int  # experts per frame
    hidden: int  # units of an expert
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def balance(
    checkpoint: Path | Experiment,
    pool: Sequence[Utterance],
    size: int,
    cache: Path,
    options: CalibrationOptions = DEFAULT_OPTIONS,
    *,
    skip_bad: bool = False,
    save_every: float = SAVE_EVERY,
    report: Say = silent,
) -> Choice:
    """Choose ``size`` recordings of ``pool``.

    Args:
        checkpoint: WeNet experiment directory, with a mixture of experts in its encoder.
        pool: recordings to choose from.
        size: how many; all of the pool when it has no more.
        cache: what was measured, by recording; kept for the next call, written now and then and on interrupts.
        options: passes, dither and longest recording, as for calibration.
        skip_bad: leave recordings out that cannot be used.
        save_every: seconds between two saves of the cache.
        report: called with lines about what is unusual.

    Raises:
        AudioError: a recording that cannot be used, without ``skip_bad``.
        CalibrationError: an encoder without experts.
        Interrupted: SIGINT or SIGTERM; what was measured is saved.
    """
    experiment = opened(checkpoint)
    if experiment.config.encoder.mlp_type != "moe":
        raise CalibrationError(f"{checkpoint}: --balance: expected an encoder with experts, found a dense one")
    chunks, _ = supported_chunks(experiment.config, options.chunks)
    options = dataclasses.replace(options, chunks=chunks)
    counter = RoutingCounter(experiment.build(), chunks)
    settings = {
        "checkpoint": experiment.sha256,
        "chunks": list(chunks),
        "dither": options.dither,
        "max_seconds": options.max_seconds,
        "layers": list(counter.layers),
    }
    measured = _Cache(cache, settings, save_every)
    features = dataclasses.replace(experiment.config.features, dither=options.dither)
    context = experiment.config.encoder.right_context

    def count(utterance: Utterance) -> NDArray[np.int64]:
        return counter.count(load_features(utterance.clip, features, options.max_seconds, context)[0])

    usable = _measure(list(pool), count, measured, skip_bad, report)
    if not usable:
        raise CalibrationError(f"expected at least one usable recording, found none among {len(pool)}")
    counts = np.stack([measured.counts[key_of(u)] for u in usable])
    chosen = choose(counts, size)
    even = spread(list(range(len(usable))), size)
    encoder = experiment.config.encoder
    return Choice(
        utterances=[usable[i] for i in chosen],
        layers=list(counter.layers),
        active=encoder.n_expert_activated,
        hidden=encoder.linear_units,
        before=counts[even].sum(0),
        after=counts[chosen].sum(0),
    )


def choose(counts: Counts, size: int) -> list[int]:
    """Indices of ``size`` recordings (all, when there are no more), rising. Equal gains: the first."""
    if size >= len(counts):
        return list(range(len(counts)))
    gains = counts.reshape(len(counts), -1).astype(np.float64)
    total, left = np.zeros(gains.shape[1]), np.ones(len(gains), bool)
    for _ in range(size):
        missing = 1.0 / (1.0 + total + gains)
        value = np.where(left, -(missing * missing).sum(1), -np.inf)
        best = int(value.argmax())
        total += gains[best]
        left[best] = False
    return np.flatnonzero(~left).tolist()


def table(choice: Choice, console: Console, rule: CoverageRule = DEFAULT_RULE) -> None:
    """Print what the least-seen expert of every layer sees before and after, in frames and % of the layer's frames."""
    sheet = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    sheet.add_column("least-seen expert of", no_wrap=True)
    for column in ("spread", "%", "balanced", "%"):
        sheet.add_column(column, justify="right")
    shares = [choice.active * counts / counts.sum(1, keepdims=True).clip(1) for counts in (choice.before, choice.after)]
    for index, layer in enumerate(choice.layers):
        cells = []
        for counts, share in zip((choice.before, choice.after), shares):
            cells += [str(int(counts[index].min())), f"{100 * share[index].min():.2f}"]
        sheet.add_row(short(layer), *cells)
    console.print(sheet)
    flagged = [
        int(np.sum((share < rule.share) | (counts < max(1, rule.rows_per_hidden * choice.hidden))))
        for counts, share in zip((choice.before, choice.after), shares)
    ]
    console.print(
        f"{len(choice.utterances)} recordings, evenly spread and balanced: "
        f"{flagged[0]} and {flagged[1]} of {choice.after.size} encoder experts see too little",
        soft_wrap=True,
    )


def key_of(utterance: Utterance) -> str:
    """Name and size, so that a recording that was replaced is measured again."""
    size = utterance.audio.stat().st_size if utterance.audio.is_file() else -1
    return f"{utterance.name}\n{size}"


def _measure(
    pool: list[Utterance],
    count: Callable[[Utterance], NDArray[np.int64]],
    measured: _Cache,
    skip_bad: bool,
    report: Say,
) -> list[Utterance]:
    """Count what the cache lacks; returns the usable recordings."""
    keys = [key_of(u) for u in pool]
    known = sum(key in measured.counts for key in keys)
    if known:
        report(f"{known} of {len(pool)} recordings were measured before ({measured.path})")
    usable = []
    with interruptible():
        try:
            with Ticker("balance") as ticker:
                for done, (utterance, key) in enumerate(zip(pool, keys), 1):
                    if key not in measured.counts:
                        try:
                            measured.add(key, count(utterance))
                        except AudioError as error:
                            ticker.note(f"skipped {tolerated(error, skip_bad)}")
                        ticker.show(done, len(pool))
                    if key in measured.counts:
                        usable.append(utterance)
        finally:
            measured.save()
    return usable


class _Cache:
    """Counts by recording, in a file. One made with other settings, or damaged, counts as empty."""

    def __init__(self, path: Path, settings: dict[str, Any], save_every: float) -> None:
        self.path, self.settings, self.save_every = path, settings, save_every
        self.counts: dict[str, NDArray[np.int64]] = {}
        self._saved, self._changed = time.monotonic(), False
        try:
            with zipfile.ZipFile(path) as archive:
                header = json.loads(archive.read("header.json"))
                counts = np.lib.format.read_array(io.BytesIO(archive.read("counts.npy")), allow_pickle=False)
            if header["settings"] == settings and len(counts) == len(header["recordings"]) and counts.ndim == 3:
                self.counts = dict(zip(header["recordings"], counts))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            pass  # it is a cache: what it lacks is measured

    def add(self, key: str, counts: NDArray[np.int64]) -> None:
        self.counts[key] = counts
        self._changed = True
        if time.monotonic() - self._saved >= self.save_every:
            self.save()

    def save(self) -> None:
        """Whole or not at all."""
        if not self._changed:
            return
        with replacing(self.path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps({"settings": self.settings, "recordings": list(self.counts)}))
            data = io.BytesIO()
            np.lib.format.write_array(data, np.stack(list(self.counts.values())), allow_pickle=False)
            archive.writestr("counts.npy", data.getvalue())
        self._saved, self._changed = time.monotonic(), False
