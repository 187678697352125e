"""Corpora by manifest: the recordings that calibration listens to and that word error rates are measured on.

A manifest is a JSONL file, one object per line with at least ``audio`` (a path relative to the manifest) and ``text``
(lower-case words; may be missing where only sound matters); ``speaker``, ``split``, ``start``, ``end`` and ``channel``
(seconds and number from 1 of a part) are used when present. Lists of WeNet, NeMo and Lhotse and folders of Kaldi are
read as well (``calibration.corpus_fields``).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from calibration.corpus_fields import MAX_LINE, audio_path, kaldi_rows, looks_like_shards, plain_row
from calibration.corpus_fields import CorpusError as CorpusError
from edge.runtime.audio_files import Clip
from edge.runtime.errors import AudioError
from edge.system.files import write_text

MANIFEST = "manifest.jsonl"
AUDIO = (".flac", ".mp3", ".ogg", ".opus", ".wav")
"""Endings of the recordings in a folder without manifest."""


T = TypeVar("T")


@dataclass(frozen=True)
class Utterance:
    """One recording. ``name`` identifies it in profiles and reports: the audio path as the manifest writes it."""

    name: str
    audio: Path
    text: str = ""
    speaker: str = ""
    split: str = ""
    start_s: float = 0.0
    seconds: float | None = None  # None: to the end
    channel: int | None = None  # from 1; None: all

    @property
    def clip(self) -> Clip:
        """What to listen to."""
        return Clip(self.audio, self.start_s, self.seconds, self.channel)


def read_corpus(
    paths: Path | Sequence[Path],
    split: str | None = None,
    limit: int = 0,
    match: str = "",
    need_text: bool = False,
    check_files: bool = True,
) -> list[Utterance]:
    """Utterances of one or more manifests, in their order.

    Args:
        paths: JSONL files (also gzipped), or folders that hold ``manifest.jsonl``, or ``wav.scp`` (Kaldi), or without
            either audio files each with its transcript beside it (``a.flac``, ``a.txt``).
        split: only lines of this split; lines without one always count. None: all.
        limit: at most this many, spread evenly over the corpus; 0: all.
        match: only names that contain this.
        need_text: every utterance must have a transcript.
        check_files: every recording must exist; False leaves that to who reads them.

    Raises:
        CorpusError: no manifest, a line that is not JSON or lacks a field, a name met twice, a recording that does
            not exist, or nothing left.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    found: dict[str, Utterance] = {}
    total = 0
    for path in paths:
        manifest = path / MANIFEST if path.is_dir() else path
        prefix = f"{manifest.parent.name}/" if len(paths) > 1 else ""
        rows = _rows(manifest) if not path.is_dir() or manifest.is_file() else _folder(path)
        for where, row in rows:
            total += 1
            utterance = _utterance(manifest, prefix, where, row, need_text)
            if split is not None and utterance.split not in ("", split):
                continue
            if match not in utterance.name:
                continue
            if utterance.name in found:
                raise CorpusError(f"{where}: {utterance.name!r} was listed before; every recording may appear once")
            if check_files and not utterance.audio.is_file():
                raise CorpusError(
                    f"{where}: expected the recording {utterance.audio}, found none; "
                    "paths are relative to the manifest's folder"
                )
            found[utterance.name] = utterance
    if not found:
        named = ", ".join(map(str, paths))
        wanted = f" of split {split!r}" if split is not None else ""
        wanted += f" with {match!r} in the name" if match else ""
        raise CorpusError(f"{named}: expected at least one utterance{wanted}, found {total} lines and none that fits")
    return spread(list(found.values()), limit)


def digest(path: Path) -> str:
    """SHA-256 of what a manifest, or a folder with or without one, lists: names and transcripts, not the audio."""
    manifest = path / MANIFEST if path.is_dir() else path
    if manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    rows = [json.dumps(row, sort_keys=True) for _, row in _folder(path)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def spread(utterances: list[T], limit: int) -> list[T]:
    """At most ``limit`` of them (0: all), evenly spaced, so that a small share still meets every speaker."""
    if limit <= 0 or limit >= len(utterances):
        return utterances
    return [utterances[i * len(utterances) // limit] for i in range(limit)]


def parse_shard(text: str) -> tuple[int, int]:
    """'2/3' -> (2, 3); raises CorpusError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise CorpusError(f"--shard: expected I/N with 1 <= I <= N, for example 1/2, found {text!r}")
    return int(found[1]), int(found[2])


def tolerated(error: AudioError, skip_bad: bool) -> AudioError:
    """``error``, of a recording that is left out; raised, with the option that leaves such out, unless ``skip_bad``."""
    if not skip_bad:
        raise AudioError(f"{error} (or leave such files out: --skip-bad)") from None
    return error


def write_manifest(utterances: Iterable[Utterance], path: Path) -> None:
    """A manifest of ``utterances`` with absolute audio paths; written beside and renamed."""
    lines = []
    for u in utterances:
        row: dict[str, Any] = {"audio": str(u.audio.resolve()), "text": u.text, "speaker": u.speaker, "split": u.split}
        row["start"] = u.start_s or (0.0 if u.seconds is not None else None)
        row |= {"end": None if u.seconds is None else u.start_s + u.seconds, "channel": u.channel}
        kept = {k: v for k, v in row.items() if v not in ("", None)}
        lines.append(json.dumps(kept, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _rows(manifest: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    if not manifest.is_file():
        raise CorpusError(
            f"{manifest}: expected a manifest (JSONL with audio and text) or a folder with {MANIFEST}, found none"
        )
    zipped = manifest.suffix == ".gz"
    with (
        gzip.open(manifest, "rt", encoding="utf-8", errors="replace")
        if zipped
        else manifest.open(encoding="utf-8", errors="replace") as file
    ):
        for number, line in enumerate(file, 1):
            where = f"{manifest}:{number}"
            if len(line) > MAX_LINE:
                raise CorpusError(f"{where}: expected a JSON object of one line, found {len(line)} characters")
            if not line.strip():
                continue
            if looks_like_shards(line):
                raise CorpusError(
                    f"{where}: expected one JSON object per line, found a list of shards ({line.strip()[:80]}); unpack "
                    "them (tar xf) and name the folder, whose .wav and .txt files are read"
                )
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CorpusError(f"{where}: expected one JSON object per line ({error})") from None
            if not isinstance(row, dict):
                raise CorpusError(f"{where}: expected a JSON object, found {type(row).__name__}")
            yield where, row


def _folder(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    return kaldi_rows(folder) if (folder / "wav.scp").is_file() else _pairs(folder)


def _pairs(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Audio files directly in ``folder``, by name, as lines of a manifest."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO)
    if not files:
        raise CorpusError(
            f"{folder}: expected {MANIFEST} (JSONL with audio and text) or audio files ({' '.join(AUDIO)}), found none"
        )
    for path in files:
        transcript = path.with_suffix(".txt")
        row = {"audio": path.name}
        if transcript.is_file():
            if transcript.stat().st_size > MAX_LINE:
                raise CorpusError(f"{transcript}: expected a transcript, found {transcript.stat().st_size} bytes")
            row["text"] = transcript.read_text(encoding="utf-8", errors="replace")
        yield str(path), row


def _utterance(manifest: Path, prefix: str, where: str, row: dict[str, Any], need_text: bool) -> Utterance:
    key = row.get("key")
    row = plain_row(where, row)
    audio, text = row["audio"], row.get("text", "")
    if not isinstance(text, str) or (need_text and not text.strip()):
        raise CorpusError(f"{where}: expected a field 'text' with the words of {audio}, found {text!r}")
    start, seconds, channel = row.get("start", 0.0), row.get("seconds"), row.get("channel")
    name = prefix + audio
    if "start" in row or channel is not None:  # several parts of one recording have names of their own
        part = f"{start:g}-" + ("" if seconds is None else f"{start + seconds:g}")
        name += f"#{key}" if isinstance(key, str) and key else f"#{part}" + (f",{channel}" if channel else "")
    path = audio_path(manifest.parent, audio)
    words = " ".join(text.split())
    return Utterance(name, path, words, row.get("speaker", ""), row.get("split", ""), start, seconds, channel)
