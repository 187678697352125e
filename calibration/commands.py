"""``u2edge calibrate`` and ``u2edge merge``."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from calibration.balance import balance, table
from calibration.corpus import CorpusError, Utterance, read_corpus, write_manifest
from calibration.profile import CalibrationOptions, Profile, merge, record_command
from calibration.run import Interrupted, Report, calibrate, interruptible, next_command, summary
from edge.commandline import command_line
from edge.console import table_console
from edge.runtime.errors import OptionsError


@dataclass(frozen=True)
class Request:
    """The command line of ``u2edge calibrate``; empty values stand for defaults that depend on others."""

    checkpoint: Path
    data: tuple[Path, ...] = ()
    out: Path | None = None
    split: str | None = "train"
    limit: int = 0
    match: str = ""
    dither: float = 0.0
    chunks: tuple[int, ...] = ()
    balance: int = 0
    shard: str = "1/1"
    skip_bad: bool = False
    restart: bool = False
    threads: int = 1


def run_calibrate(request: Request) -> int:
    """Exit code: 0, or 128 + signal after an interrupt; raises EdgeError."""
    console, notes = _consoles()
    shard = parse_shard(request.shard)
    out = request.out or default_profile(request.checkpoint, shard)
    options = CalibrationOptions(dither=request.dither)
    if request.chunks:
        options = CalibrationOptions(chunks=request.chunks, dither=request.dither)
    corpus = read_corpus(
        _data(request),
        split=request.split,
        limit=request.limit,
        match=request.match,
        check_files=not request.skip_bad,
    )
    torch.set_num_threads(request.threads)

    def report(line: str) -> None:
        notes.print(line, soft_wrap=True)

    try:
        with interruptible():
            profile = _calibrate(request, corpus, out, options, shard, console, report)
    except Interrupted as stop:
        again = "type the same command" + (" without --restart" if request.restart else "")
        report(f"stopped ({stop}); what was done is kept: {again} to continue")
        return stop.code
    record_command(out, command_line())
    summary(profile, console)
    report(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if shard[1] == 1:
        report(next_command(request.checkpoint, out))
    else:
        report(f"next: u2edge merge {shlex.quote(str(out))} OTHER_SHARDS... -o PROFILE")
    return 0


def _calibrate(
    request: Request,
    corpus: list[Utterance],
    out: Path,
    options: CalibrationOptions,
    shard: tuple[int, int],
    console: Console,
    report: Report,
) -> Profile:
    """Choose recordings when asked to, and listen to them."""
    checkpoint, skip_bad, restart = request.checkpoint, request.skip_bad, request.restart
    if request.balance:
        cache = out.with_name(out.name + ".routing")
        if restart:
            cache.unlink(missing_ok=True)
        choice = balance(checkpoint, corpus, request.balance, cache, options, skip_bad=skip_bad, report=report)
        table(choice, console)
        corpus = choice.utterances
        manifest = out.with_name(out.name + ".jsonl")
        write_manifest(corpus, manifest)
        report(f"wrote {manifest}")
    return calibrate(checkpoint, corpus, out, options, shard=shard, skip_bad=skip_bad, restart=restart, report=report)


def run_merge(paths: list[Path], out: Path) -> None:
    """Join profiles; raises ProfileError."""
    console, notes = _consoles()
    profile = merge([Profile.load(path) for path in paths])
    profile.save(out)
    record_command(out, command_line())
    summary(profile, console)
    notes.print(f"wrote {out}", soft_wrap=True)
    notes.print(next_command(Path(profile.header.checkpoint), out), soft_wrap=True)


def parse_shard(text: str) -> tuple[int, int]:
    """'2/3' -> (2, 3); raises OptionsError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise OptionsError(f"--shard: expected I/N with 1 <= I <= N, for example 1/2, found {text!r}")
    return int(found[1]), int(found[2])


def default_profile(checkpoint: Path, shard: tuple[int, int] = (1, 1)) -> Path:
    """Where a profile goes when nothing else is said; shards do not write over each other."""
    folder = checkpoint.resolve()
    name = folder.parent.name if folder.is_file() else folder.name
    part = f".{shard[0]}of{shard[1]}" if shard[1] > 1 else ""
    return Path("build") / f"{name}{part}.profile"


def _data(request: Request) -> list[Path]:
    if request.data:
        return list(request.data)
    folder = request.checkpoint if request.checkpoint.is_dir() else request.checkpoint.parent
    samples = folder / "samples"
    if not samples.is_dir():
        raise CorpusError(f"{samples}: expected recordings beside the checkpoint, found none; name some with --data")
    return [samples]


def _consoles() -> tuple[Console, Console]:
    """Results, and notes about the run."""
    plain = {"highlight": False, "markup": False, "emoji": False}
    return table_console(markup=False), Console(stderr=True, **plain)  # type: ignore[arg-type]
