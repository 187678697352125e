"""Human digit strings of held-out speakers: the recordings a number in the README is measured on.

Isolated digits (FSDD) of one speaker are joined into strings of 3 to 8 with pauses of 0.1 to 0.4 s;
spoken strings (speechocean762) are used as they are or two in a row. The seed is fixed, so everyone gets
the same audio:

    python -m recipes.reference.devset ../shared/speech/digits-human build/dev-digits
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from recipes.reference.store import read_manifest

RATE = 16000
MOST = 8


@dataclass(frozen=True)
class Utterance:
    """samples (n,) float32 in [-1, 1] at 16 kHz."""

    name: str
    samples: NDArray[np.float32]
    text: str
    speaker: str


def digit_strings(corpus: Path, split: str = "dev", seed: int = 7) -> list[Utterance]:
    """All strings of one split of ``digits-human``; every recording is used once."""
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[dict[str, str]]] = {}
    for row in read_manifest(corpus):
        if row["split"] == split:
            by_speaker.setdefault(row["speaker"], []).append(row)
    utterances: list[Utterance] = []
    for speaker, rows in sorted(by_speaker.items()):
        rows = [rows[int(i)] for i in rng.permutation(len(rows))]
        used = 0
        while used < len(rows):
            wanted = int(rng.integers(3, MOST + 1))
            picked: list[dict[str, str]] = []
            while used < len(rows) and (size := _digits(picked)) < wanted:
                if picked and size + _digits([rows[used]]) > MOST:
                    break
                picked.append(rows[used])
                used += 1
            if _digits(picked) >= 3:
                utterances.append(_join(f"{speaker}-{len(utterances):04d}", corpus, picked, rng))
    return utterances


def _digits(rows: list[dict[str, str]]) -> int:
    return sum(len(r["text"].split()) for r in rows)


def _join(name: str, corpus: Path, rows: list[dict[str, str]], rng: np.random.Generator) -> Utterance:
    pieces = [np.zeros(int(0.3 * RATE), np.float32)]
    for row in rows:
        samples, rate = soundfile.read(corpus / row["audio"], dtype="float32")
        if rate != RATE or samples.ndim != 1:
            raise ValueError(f"{row['audio']}: expected {RATE} Hz mono, found {rate} Hz, shape {samples.shape}")
        pieces += [samples, np.zeros(int(rng.uniform(0.1, 0.4) * RATE), np.float32)]
    pieces[-1] = np.zeros(int(0.5 * RATE), np.float32)
    return Utterance(name, np.concatenate(pieces), " ".join(r["text"] for r in rows), rows[0]["speaker"])


def write(utterances: list[Utterance], folder: Path) -> None:
    """FLAC files and a manifest.jsonl in the format of the corpora."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.jsonl").open("w") as file:
        for u in utterances:
            soundfile.write(folder / f"{u.name}.flac", u.samples, RATE)
            row = {
                "audio": f"{u.name}.flac",
                "text": u.text,
                "speaker": u.speaker,
                "split": "dev",
                "seconds": round(len(u.samples) / RATE, 3),
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the digits-human folder")
    parser.add_argument("out", type=Path, help="folder for the joined recordings and their manifest.jsonl")
    args = parser.parse_args()
    utterances = digit_strings(args.corpus)
    write(utterances, args.out)
    print(f"{len(utterances)} strings, {sum(len(u.text.split()) for u in utterances)} digits in {args.out}")


if __name__ == "__main__":
    main()
