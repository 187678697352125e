"""The whole calibration run: progress, interruption and continuation, bad recordings, the coverage table.

What is done so far lies in ``<profile>.part``: a profile like the final one, and a digest of the work list. As a
profile does not depend on the order of its utterances, a run that was killed and continued writes the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shlex
import signal
import statistics
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from calibration.collect import CalibrationError, StatisticsCollector, supported_chunks
from calibration.corpus import Utterance, tolerated
from calibration.profile import (
    DEFAULT_RULE,
    PART_MEMBER,
    CalibrationOptions,
    CoverageRule,
    Profile,
    ProfileError,
    merge,
)
from edge.model.checkpoint import Experiment, opened
from edge.runtime.errors import AudioError
from edge.system.console import Say, silent
from edge.system.files import write_bytes
from edge.system.progress import Ticker

DEFAULT_OPTIONS = CalibrationOptions()
SAVE_EVERY = 30.0
"""Seconds between two saves of the state."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.code = 128 + signum


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM raises Interrupted and further ones wait until the state is saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(signum: int, frame: Any) -> None:
        for other in signals:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def calibrate(
    checkpoint: Path | Experiment,
    corpus: Sequence[Utterance],
    out: Path,
    options: CalibrationOptions = DEFAULT_OPTIONS,
    *,
    shard: tuple[int, int] = (1, 1),
    skip_bad: bool = False,
    restart: bool = False,
    save_every: float = SAVE_EVERY,
    report: Say = silent,
) -> Profile:
    """Show every utterance of ``corpus`` to the model and write the profile to ``out``.

    Args:
        checkpoint: WeNet experiment directory.
        corpus: see ``calibration.corpus.read_corpus``.
        out: the profile; ``<out>.part`` holds what is done so far, and is continued when it exists.
        options: what decides the numbers. Passes that the model cannot run are left out.
        shard: (i, n): every n-th utterance, from the i-th (1-based); ``merge`` joins the profiles of all n.
        skip_bad: leave recordings out that cannot be used; the profile lists them.
        restart: forget what is done so far.
        save_every: seconds between two saves of the state.
        report: called with lines about what is unusual.

    Raises:
        AudioError: a recording that cannot be used, without ``skip_bad``; what is done so far is saved.
        CalibrationError: another run's state, no usable recording, activations that are not finite.
        Interrupted: SIGINT or SIGTERM; what is done so far is saved.
    """
    experiment = opened(checkpoint)
    chunks, why = supported_chunks(experiment.config, options.chunks)
    if why:
        report(why)
    collector = StatisticsCollector(experiment, dataclasses.replace(options, chunks=chunks))
    first, every = shard
    work = list(corpus)[first - 1 :: every]
    if not work:
        raise CalibrationError(
            f"--shard {first}/{every}: expected more than {len(corpus)} utterances; use fewer shards"
        )
    state = State(part_of(out), Profile(collector.header, {}, {}, {}, {}), digest(work), save_every)
    if state.resume(restart):
        report(f"continuing after {state.done} of {len(work)} utterances ({state.path})")
    report(f"calibrate: {len(work)} recordings")
    with interruptible():
        try:
            _pass(collector, work, state, skip_bad)
            if not state.profile.header.utterances:
                raise CalibrationError(f"expected at least one usable recording, found none among {len(work)}")
            state.profile.save(out)
        except BaseException:  # bad audio, an interrupt: what was heard so far is not lost
            state.save()
            raise
    state.path.unlink(missing_ok=True)
    return state.profile


def _pass(collector: StatisticsCollector, work: list[Utterance], state: State, skip_bad: bool) -> None:
    """Collect what ``state`` does not have yet."""
    known = {*state.profile.header.utterances, *state.profile.header.skipped}
    with Ticker("calibrate") as ticker:
        ticker.show(state.done, len(work))
        for utterance in work:
            if utterance.name in known:
                continue
            try:
                features, samples = collector.load(utterance.clip)
            except AudioError as error:
                ticker.note(f"skipped {tolerated(error, skip_bad)}")
                state.skip(utterance.name)
            else:
                state.add(collector.collect(utterance.name, features, samples))
            ticker.show(state.done, len(work))


class State:
    """What a run has done so far, in memory and in ``path``. ``work`` is the digest of everything it has to do."""

    def __init__(self, path: Path, empty: Profile, work: str, save_every: float = SAVE_EVERY) -> None:
        self.path, self.profile, self.work, self.save_every = path, empty, work, save_every
        self._saved = time.monotonic()

    @property
    def done(self) -> int:
        """Utterances seen or skipped."""
        return len(self.profile.header.utterances) + len(self.profile.header.skipped)

    def add(self, profile: Profile) -> None:
        # One assignment: an interrupt leaves either all of an utterance or nothing.
        self.profile = merge([self.profile, profile])
        self._save_sometimes()

    def skip(self, name: str) -> None:
        header = self.profile.header
        skipped = tuple(sorted((*header.skipped, name)))
        self.profile = dataclasses.replace(self.profile, header=dataclasses.replace(header, skipped=skipped))
        self._save_sometimes()

    def save(self) -> None:
        """Whole or not at all; nothing when nothing was done."""
        if not self.done:
            return
        buffer = io.BytesIO(self.profile.to_bytes())
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(PART_MEMBER, json.dumps({"work": self.work}))
        write_bytes(self.path, buffer.getvalue())
        self._saved = time.monotonic()

    def resume(self, restart: bool) -> bool:
        """Load what ``path`` holds; False when there is nothing or ``restart`` throws it away.

        Raises:
            CalibrationError: the file is damaged, or belongs to another checkpoint, other options or another corpus.
        """
        if restart:
            self.path.unlink(missing_ok=True)
        if not self.path.is_file():
            return False
        try:
            found, mine = Profile.load(self.path, unfinished=True), self.profile.header
            with zipfile.ZipFile(self.path) as archive:
                work = json.loads(archive.read(PART_MEMBER))["work"]
        except (ProfileError, ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{error}; throw the file away with --restart") from None
        differs = [
            what
            for what, same in (
                ("checkpoint", found.header.checkpoint_sha256 == mine.checkpoint_sha256),
                ("options", found.header.options == mine.options),
                ("list of recordings", work == self.work),
            )
            if not same
        ]
        if differs:
            raise CalibrationError(
                f"{self.path}: expected an unfinished run of this command, found one of another {differs[0]}; "
                "throw it away with --restart, or write to another file with -o"
            )
        self.profile = found
        return True

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved >= self.save_every:
            self.save()


def part_of(out: Path) -> Path:
    """Where an unfinished run lies."""
    return out.with_name(out.name + ".part")


def digest(work: Sequence[Utterance]) -> str:
    """SHA-256 of names and sizes of the recordings, in order."""
    rows = [(u.name, u.audio.stat().st_size if u.audio.is_file() else -1) for u in work]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def summary(profile: Profile, console: Console, rule: CoverageRule = DEFAULT_RULE) -> None:
    """Print what was seen and a table of the coverage: one line per MoE layer, in % of its frames."""
    header = profile.header
    skipped = f", {len(header.skipped)} skipped" if header.skipped else ""
    passes = ", ".join("full context" if c < 0 else f"chunks of {c}" for c in header.options.chunks)
    console.print(f"{len(header.utterances)} recordings, {profile.seconds:.0f} s of audio{skipped}; {passes}")
    layers: dict[str, list[Any]] = {}
    for coverage in profile.coverage(rule):
        layers.setdefault(coverage.layer, []).append(coverage)
    if not layers:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("MoE layer", no_wrap=True)
    for column in ("frames", "least", "median", "most %"):
        table.add_column(column, justify="right")
    table.add_column("flagged experts")
    for layer, experts in sorted(layers.items(), key=lambda item: natural(item[0])):
        shares = sorted(100 * e.share for e in experts)
        shown = [f"{shares[0]:.2f}", f"{statistics.median(shares):.1f}", f"{shares[-1]:.1f}"]
        flagged = " ".join(str(e.expert) for e in experts if not e.covered)
        table.add_row(short(layer), str(int(profile.routing[layer].frames.sum())), *shown, flagged or "-")
    console.print(table)
    if count := len(profile.uncovered(rule)):
        console.print(
            f"{count} experts saw less than {rule.share:.1%} of the frames or {rule.rows_per_hidden:g} frames per "
            "hidden unit: their scales are borrowed from all frames. More audio, or --balance N, may cover them.",
            soft_wrap=True,
        )


def short(layer: str) -> str:
    """A layer's module path without what is the same in all of them, for tables."""
    return layer.replace("encoder.encoders.", "encoder.").replace(".decoders.", ".").removeprefix("decoder.")


def natural(path: str) -> list[tuple[int, str]]:
    """Sort key: block 10 after block 2."""
    return [(int(part) if part.isdecimal() else -1, part) for part in path.split(".")]


def next_command(checkpoint: Path, out: Path) -> str:
    """What to do with a profile."""
    bundle = out.with_name(out.name.removesuffix(".profile") + "-int8")
    parts = ["u2edge", "quantize", str(checkpoint), "--profile", str(out), "-o", str(bundle)]
    return "next: " + shlex.join(parts)
