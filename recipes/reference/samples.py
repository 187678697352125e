"""Writes the recordings in models/reference/samples: human digit strings of held-out speakers, and synthetic ones.

    python -m recipes.reference.samples models/reference/samples --speech ../shared/speech --synthetic build/synthetic

Each FLAC file has a .txt beside it with what was spoken. SOURCES.md says where the voices come from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from recipes.reference.devset import RATE, Utterance, digit_strings
from recipes.reference.store import read_manifest

SOURCES = """# Where these recordings come from

| file | voice | licence |
|---|---|---|
| `human-*.flac` | speaker "theo" of the Free Spoken Digit Dataset (Z. Jackson et al.) | CC BY-SA 4.0 |
| `synthetic-*.flac` | espeak-ng, flite and festival | made here, free to use |

The human digits were upsampled from 8 kHz and joined into strings with pauses.

The human strings are three that the model understands, so that a first try shows what it can do; how often it
fails is in the model card. The model never saw the speaker "theo" in training. Synthetic voices are no evidence
about human speech.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--speech", type=Path, required=True, help="folder that holds digits-human")
    parser.add_argument("--synthetic", type=Path, required=True, help="folder made by synthesize.py")
    args = parser.parse_args()
    human = [u for u in digit_strings(args.speech / "digits-human") if u.speaker == "fsdd-theo"]
    chosen = [
        Utterance(f"human-{i + 1}", u.samples, u.text, u.speaker)
        for i, u in enumerate([u for u in human if 4 <= len(u.text.split()) <= 6][1:4])
    ]
    engines: dict[str, dict[str, str]] = {}
    for row in read_manifest(args.synthetic):
        if 4 <= len(row["text"].split()) <= 6 and "oh" not in row["text"].split():
            engines.setdefault(row["speaker"].split("-")[0], row)
    for engine, row in sorted(engines.items()):
        samples, _ = soundfile.read(args.synthetic / row["audio"], dtype="float32")
        silence = np.zeros(RATE // 2, np.float32)
        chosen.append(
            Utterance(f"synthetic-{engine}", np.concatenate([silence, samples, silence]), row["text"], row["speaker"])
        )
    args.out.mkdir(parents=True, exist_ok=True)
    for u in chosen:
        soundfile.write(args.out / f"{u.name}.flac", u.samples, RATE)
        (args.out / f"{u.name}.txt").write_text(u.text + "\n", encoding="utf-8")
        print(f"{u.name}: {u.text} ({u.speaker}, {len(u.samples) / RATE:.1f} s)")
    (args.out / "SOURCES.md").write_text(SOURCES, encoding="utf-8")


if __name__ == "__main__":
    main()
