"""Features of a corpus, computed once: a float16 memory map and an index of clips.

A corpus is a folder with ``manifest.jsonl`` (one object per line: audio, text, speaker, split, seconds).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track

from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from edge.system.files import write_json


@dataclass(frozen=True)
class Clip:
    """One recording; ``start`` and ``frames`` say where its features lie in the store."""

    audio: str
    text: str
    speaker: str
    split: str
    corpus: str
    start: int
    frames: int


@dataclass(frozen=True)
class FeatureStore:
    """Clips and their log-mel features (frames, mel), float16 on disk."""

    clips: tuple[Clip, ...]
    features: NDArray[np.float16]

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """(frames, mel) float32."""
        return np.asarray(self.features[clip.start : clip.start + clip.frames], dtype=np.float32)

    def seconds(self) -> float:
        return sum(c.frames for c in self.clips) / 100.0


def read_manifest(corpus: Path) -> list[dict[str, str]]:
    """Rows of ``corpus/manifest.jsonl``. Raises ValueError with the line number."""
    rows = []
    for number, line in enumerate((corpus / "manifest.jsonl").read_text().splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row, dict) or not {"audio", "text", "speaker", "split"} <= row.keys():
            raise ValueError(f"{corpus}/manifest.jsonl:{number}: expected audio, text, speaker and split")
        rows.append(row)
    return rows


def fbank(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    """(frames, mel) of one recording at the model's sample rate, exactly as the recognizer computes it."""
    stream = StreamingFbank(options)
    return stream.accept(samples)


def _load(path: str) -> NDArray[np.float16]:
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != 16000 or samples.ndim != 1:
        raise ValueError(f"{path}: expected 16000 Hz mono, found {rate} Hz, shape {samples.shape}")
    return fbank(samples, FeatureOptions()).astype(np.float16)


def build(corpora: list[Path], folder: Path, split: str, jobs: int = 2) -> FeatureStore:
    """Compute (or reuse) the features of one split of ``corpora`` under ``folder``."""
    index, data = folder / f"{split}.json", folder / f"{split}.f16"
    rows = [(corpus, row) for corpus in corpora for row in read_manifest(corpus) if row["split"] == split]
    wanted = [str(corpus / row["audio"]) for corpus, row in rows]
    if index.exists():
        clips = [Clip(**c) for c in json.loads(index.read_text())]
        if [c.audio for c in clips] == wanted:
            return _open(clips, data)
    folder.mkdir(parents=True, exist_ok=True)
    clips, start = [], 0
    part = data.with_suffix(".part")
    with part.open("wb") as file, ProcessPoolExecutor(jobs) as pool:
        features: Iterator[NDArray[np.float16]] = pool.map(_load, wanted, chunksize=32)
        for (corpus, row), matrix in track(zip(rows, features), f"features {split}", total=len(rows)):
            file.write(matrix.tobytes())
            clips.append(
                Clip(str(corpus / row["audio"]), row["text"], row["speaker"], split, corpus.name, start, len(matrix))
            )
            start += len(matrix)
    part.rename(data)
    write_json(index, [asdict(c) for c in clips], indent=None)
    return _open(clips, data)


def open_store(folder: Path, split: str) -> FeatureStore:
    """A store that ``build`` made before."""
    clips = [Clip(**c) for c in json.loads((folder / f"{split}.json").read_text())]
    return _open(clips, folder / f"{split}.f16")


def _open(clips: list[Clip], data: Path) -> FeatureStore:
    mel = FeatureOptions().num_mel_bins
    return FeatureStore(tuple(clips), np.memmap(data, dtype=np.float16, mode="r").reshape(-1, mel))
