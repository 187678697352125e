"""Human strings of held-out speakers: the recordings a number in the README is measured on.

Isolated digits (FSDD) of one speaker are joined into strings of 3 to 8 with pauses of 0.1 to 0.4 s;
spoken strings (speechocean762) are used as they are or two in a row. The seed is fixed, so everyone gets
the same audio:

    python -m recipes.reference.devset ../shared/speech/digits-human build/dev-digits

Of ``commands-human`` strings of 2 to 5 words are made in the same way (split.py says whose):

    python -m recipes.reference.devset build/commands/speech/commands-human build/commands/dev-commands
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
    """All strings of 3 to 8 of one split of ``digits-human``; every recording is used once."""
    return strings(corpus, split, seed, 3, MOST)


def command_strings(corpus: Path, split: str = "dev", seed: int = 7) -> list[Utterance]:
    """All strings of 2 to 5 words of one split of ``commands-human``; every recording is used once."""
    return strings(corpus, split, seed, 2, 5)


def strings(corpus: Path, split: str, seed: int, least: int, most: int) -> list[Utterance]:
    """Recordings of one speaker joined into strings of ``least`` to ``most`` words."""
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
            wanted = int(rng.integers(least, most + 1))
            picked: list[dict[str, str]] = []
            while used < len(rows) and (size := _words(picked)) < wanted:
                if picked and size + _words([rows[used]]) > most:
                    break
                picked.append(rows[used])
                used += 1
            if _words(picked) >= least:
                utterances.append(_join(f"{speaker}-{len(utterances):04d}", corpus, picked, rng))
    return utterances


def _words(rows: list[dict[str, str]]) -> int:
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


def write(utterances: list[Utterance], folder: Path, split: str = "dev") -> None:
    """FLAC files and a manifest.jsonl in the format of the corpora."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.jsonl").open("w") as file:
        for u in utterances:
            soundfile.write(folder / f"{u.name}.flac", u.samples, RATE)
            row = {
                "audio": f"{u.name}.flac",
                "text": u.text,
                "speaker": u.speaker,
                "split": split,
                "seconds": round(len(u.samples) / RATE, 3),
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the folder digits-human, or commands-human")
    parser.add_argument("out", type=Path, help="folder for the joined recordings and their manifest.jsonl")
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="test: only to write a model card")
    args = parser.parse_args()
    join = command_strings if args.corpus.name.startswith("commands") else digit_strings
    utterances = join(args.corpus, args.split)
    write(utterances, args.out, args.split)
    print(f"{len(utterances)} strings, {sum(len(u.text.split()) for u in utterances)} words in {args.out}")


if __name__ == "__main__":
    main()
