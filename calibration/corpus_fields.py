"""Lines of corpora as the toolkits write them: which recording, which part of it, what is said.

WeNet: ``key, wav, txt``, and ``start, end`` (s) of a segment. NeMo: ``audio_filepath, offset, duration, text``. Lhotse
and icefall: cuts (``id, start, duration, channel, recording, supervisions``). Kaldi: a folder with ``wav.scp``,
``text``, ``segments``, ``utt2spk``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from edge.runtime.errors import EdgeError

MAX_LINE = 1 << 20  # characters; more is not a manifest
_AUDIO = ("audio", "wav", "audio_filepath", "audio_path", "path", "file")
_TEXT = ("text", "txt", "transcript", "sentence")
_START = ("start", "offset", "begin", "start_time", "begin_time", "start_s")
_END = ("end", "stop", "end_time", "end_s")
_IN_MS = {"start_ms": "start", "begin_ms": "start", "offset_ms": "start", "end_ms": "end", "duration_ms": "duration"}
_IN_SAMPLES = ("frame_offset", "num_frames", "start_sample", "end_sample", "start_frame", "end_frame", "sample_offset")
_V1_PART = re.compile(r"(.+\.\w+),(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)")  # WeNet 1.0: path,start,end
_MULTI = {"utt2spk": "speaker", "spk": "speaker", "speaker_id": "speaker"}


class CorpusError(EdgeError, ValueError):
    """A manifest that cannot be used; the message names file and line."""


def plain_row(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """``row`` of any toolkit as ``audio, text, speaker, split, start, seconds, channel``; absent ones are left out.

    Raises:
        CorpusError: a line of another kind, or a part of a recording that cannot be understood.
    """
    if isinstance(row.get("recording"), dict) or "supervisions" in row:
        row = _cut(where, row)
    for name in _IN_SAMPLES:
        if row.get(name) is not None:
            raise CorpusError(f"{where}: {name}: a part in samples is not read; write start and end in seconds")
    for name, kept in _IN_MS.items():
        if row.get(name) is not None and row.get(kept) is None:
            milliseconds = _number(where, row, (name,))
            row = {**row, kept: None if milliseconds is None else milliseconds / 1000}
    found: dict[str, Any] = {}
    audio = _first(row, _AUDIO)
    if isinstance(audio, str) and (part := _V1_PART.fullmatch(audio)) and _first(row, _START + _END) is None:
        audio, row = part[1], {**row, "start": float(part[2]), "end": float(part[3])}
    if audio is None and "recording_id" in row:
        raise CorpusError(
            f"{where}: expected a recording, found a Lhotse supervision, whose recording is elsewhere; write cuts: "
            "CutSet.from_manifests(recordings, supervisions).trim_to_supervisions().to_file('cuts.jsonl.gz')"
        )
    if not isinstance(audio, str) or not audio:
        raise CorpusError(
            f"{where}: expected a field 'audio' with a path, found {', '.join(sorted(map(str, row))) or 'nothing'}"
        )
    found["audio"] = audio
    if (text := _first(row, _TEXT)) is not None:
        found["text"] = text
    for name in ("speaker", "split"):
        if row.get(name) is not None:
            found[name] = str(row[name])
    for name, kept in _MULTI.items():
        if kept not in found and row.get(name) is not None:
            found[kept] = str(row[name])
    start, end = _number(where, row, _START), _number(where, row, _END)
    seconds = _number(where, row, ("duration",)) if start is not None and end is None else None
    if end is not None:
        seconds = end - (start or 0.0)
    if seconds is not None and seconds <= 0:
        raise CorpusError(f"{where}: expected a part of positive length, found {start} to {end} s")
    if start or (seconds is not None and (end is not None or start is not None)):
        found["start"] = start or 0.0
        if seconds is not None:
            found["seconds"] = seconds
    if row.get("channel") is not None:
        channel = row["channel"]
        if isinstance(channel, list) and len(channel) == 1:
            channel = channel[0]
        if isinstance(channel, list):
            channel = None  # several: mixed
        elif isinstance(channel, bool) or not isinstance(channel, int) or channel < 0:
            raise CorpusError(f"{where}: expected a channel number, found {row['channel']!r}")
        if channel is not None:
            found["channel"] = channel + (1 if row.get("_from_zero") else 0)
    return found


def _cut(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """A Lhotse cut: its recording's file, its place in it, the texts of its supervisions in order."""
    recording = row.get("recording")
    sources = recording.get("sources") if isinstance(recording, dict) else None
    files = [s for s in sources or [] if isinstance(s, dict) and s.get("type") == "file"]
    if row.get("type", "MonoCut") not in ("MonoCut", "MultiCut", "DataCut") or len(files) != 1:
        raise CorpusError(
            f"{where}: expected a Lhotse cut of one recording in one file, found {row.get('type', 'a cut')!r} with "
            f"{len(files)} files; write plain cuts: cuts.save_audios(...).to_file('cuts.jsonl.gz')"
        )
    said = [s for s in row.get("supervisions") or [] if isinstance(s, dict)]
    said.sort(key=lambda s: s.get("start", 0.0))
    whole = isinstance(recording, dict) and not row.get("start") and row.get("duration") == recording.get("duration")
    found = {"audio": files[0].get("source"), "text": " ".join(str(s.get("text") or "") for s in said).strip()}
    found |= {} if whole else {"start": row.get("start", 0.0), "duration": row.get("duration")}
    channels = recording.get("channel_ids") if isinstance(recording, dict) else None
    if isinstance(row.get("channel"), (int, list)) and len(channels or files[0].get("channels") or [0]) > 1:
        found |= {"channel": row["channel"], "_from_zero": True}
    if said and said[0].get("speaker"):
        found["speaker"] = said[0]["speaker"]
    return found


def kaldi_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A Kaldi data folder as lines of a manifest: one per segment, or per recording without ``segments``.

    Raises:
        CorpusError: a pipe or an archive instead of a file, a line that is short, or a recording that is not there.
    """
    wavs, texts = dict(_table(folder / "wav.scp")), dict(_table(folder / "text"))
    speakers = dict(_table(folder / "utt2spk"))
    segments = folder / "segments"
    parts = [(key, f"{key} 0 -1") for key in wavs] if not segments.is_file() else list(_table(segments))
    for key, rest in parts:
        fields = rest.split()
        where = f"{segments if segments.is_file() else folder / 'wav.scp'}: {key}"
        if len(fields) < 3:
            raise CorpusError(f"{where}: expected 'utterance recording start end', found {rest[:60]!r}")
        recording = fields[0]
        if recording not in wavs:
            raise CorpusError(f"{where}: expected a recording of wav.scp, found {recording!r}")
        row: dict[str, Any] = {"audio": _scp_path(folder, recording, wavs[recording]), "key": key}
        try:
            start, end = float(fields[1]), float(fields[2])
        except ValueError:
            raise CorpusError(f"{where}: expected times in seconds, found {rest[:60]!r}") from None
        if end > 0:
            row |= {"start": start, "end": end}
        elif start:
            row |= {"start": start}
        if key in texts:
            row["text"] = texts[key]
        if key in speakers:
            row["speaker"] = speakers[key]
        yield where, row


def _scp_path(folder: Path, key: str, entry: str) -> str:
    """The file of a line of wav.scp; ``sph2pipe ... |`` and ark offsets are not files."""
    if entry.endswith("|"):
        raise CorpusError(
            f"{folder / 'wav.scp'}: {key}: expected a file, found a command ({entry[:60]!r}); nothing is run here: "
            "write the audio to files first (wav-copy scp:wav.scp ark,scp:...)"
        )
    if re.search(r"\.ark:\d+$", entry):
        raise CorpusError(f"{folder / 'wav.scp'}: {key}: expected an audio file, found a place in an archive {entry!r}")
    return entry


def _table(path: Path) -> Iterator[tuple[str, str]]:
    """Key and the rest of each line; nothing when there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if len(line) > MAX_LINE:
                raise CorpusError(f"{path}:{number}: expected a line of a Kaldi table, found {len(line)} characters")
            key, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
            if key:
                yield key, rest.strip()


def looks_like_shards(line: str) -> bool:
    """A line of WeNet's shard list: the path of a tar archive."""
    return re.search(r"\.(tar|tar\.gz|tgz)$", line.strip()) is not None and not line.lstrip().startswith("{")


def audio_path(folder: Path, audio: str) -> Path:
    """Where the recording lies: as written, with the separators of any system."""
    path = folder / audio
    if "\\" in audio and not path.exists():
        windows = PureWindowsPath(audio)
        if not windows.drive:
            return folder.joinpath(*windows.parts)
    return path


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _number(where: str, row: dict[str, Any], names: tuple[str, ...]) -> float | None:
    value = _first(row, names)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        name = next(name for name in names if row.get(name) is not None)
        raise CorpusError(f"{where}: {name}: expected seconds, found {row[name]!r}")
    return float(value)
