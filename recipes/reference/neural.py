"""Spoken digits of a neural synthesiser: many voices that are nearer to people than ``synthesize.py``'s.

    python -m recipes.reference.neural build/neural-digits --model kokoro-v1.0.int8.onnx --voices voices --strings 1000

Kokoro-82M (hexgrad, Apache-2.0) in ONNX form is not part of this repository. ``--model`` has the inputs tokens (1, n)
int64, style (1, 256) float32 and speed (1,) float32, and gives samples at 24 kHz; ``--voices`` holds a NAME.bin of
float32 (510, 256) per voice, one style for each number of tokens. It takes 0.5 to 0.9 core-seconds a second of speech.

A third of the strings are said by a blend of two voices: their styles can be averaged. Text, voice and pace of a string
depend on its index only, and finished strings are kept, so the same command resumes. Synthetic speech is no evidence
about people.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from edge.system.files import replacing, write_text

SYNTHESISER_RATE, RATE = 24_000, 16_000  # Hz
# Kokoro's alphabet: A, I, O and Q are the diphthongs of eight, nine, American and British oh.
AMERICAN = {
    "zero": "zˈiɹO",
    "oh": "ˈO",
    "one": "wˈʌn",
    "two": "tˈu",
    "three": "θɹˈi",
    "four": "fˈɔɹ",
    "five": "fˈIv",
    "six": "sˈɪks",
    "seven": "sˈɛvən",
    "eight": "ˈAt",
    "nine": "nˈIn",
}
BRITISH = AMERICAN | {"zero": "zˈiəɹQ", "oh": "ˈQ", "two": "tˈuː", "three": "θɹˈiː", "four": "fˈɔː"}
TOKENS = {
    c: i
    for i, c in zip(
        (3, 4, 16, 24, 25, 31, 33, 48, 51, 53, 56, 61, 62, 63, 64, 65, 68, 76, 83, 86, 102, 119, 123, 138, 156, 158),
        ",. AIOQfiknstuvwzɔəɛɪθɹʌˈː",
        strict=True,
    )
}


@dataclass(frozen=True)
class Line:
    """One string to say; ``blend`` is the share of the first voice."""

    words: tuple[str, ...]
    separator: str
    voices: tuple[str, ...]
    blend: float
    speed: float
    peak: float

    @property
    def speaker(self) -> str:
        return "kokoro-" + "-".join(self.voices)

    def phonemes(self) -> str:
        """What the synthesiser is given; voices whose names begin with b are British."""
        said = BRITISH if self.voices[0].startswith("b") else AMERICAN
        return self.separator.join(said[w] for w in self.words) + "."


def plan(index: int, voices: list[str]) -> Line:
    """String ``index``: one to eight digits, said in one go, with commas, or one by one."""
    rng = random.Random(f"neural:{index}")
    count = 1 if rng.random() < 0.12 else rng.randint(3, 8)
    words = rng.choices(list(AMERICAN), weights=[0.7, 0.5] + [1.0] * 9, k=count)
    separator = rng.choices((", ", " ", ". "), (0.45, 0.3, 0.25))[0]
    own = [voices[index % len(voices)]]
    if rng.random() < 0.35:
        own = rng.sample(voices, 2) if len(voices) > 1 else own
    return Line(
        tuple(words), separator, tuple(own), rng.uniform(0.25, 0.75), rng.uniform(0.75, 1.25), rng.uniform(0.3, 0.8)
    )


def style(styles: dict[str, NDArray[np.float32]], line: Line, tokens: int) -> NDArray[np.float32]:
    """(1, 256) the voice's style for so many tokens, a weighted mean for a blend."""
    shares = (1.0,) if len(line.voices) == 1 else (line.blend, 1 - line.blend)
    mean = sum(share * styles[name][tokens - 1] for share, name in zip(shares, line.voices))
    return np.asarray(mean, dtype=np.float32)[None]


def read_voices(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Name -> styles (510, 256). Raises FileNotFoundError or ValueError."""
    found = {p.stem: np.fromfile(p, np.float32) for p in sorted(folder.glob("*.bin"))}
    if not found:
        raise FileNotFoundError(f"{folder}: expected voices NAME.bin, found none; see --help")
    for name, styles in found.items():
        if styles.size != 510 * 256:
            raise ValueError(f"{folder}/{name}.bin: expected {510 * 256} float32, found {styles.size}")
    return {name: styles.reshape(510, 256) for name, styles in found.items()}


def say(
    session: onnxruntime.InferenceSession, styles: dict[str, NDArray[np.float32]], line: Line
) -> NDArray[np.float32]:
    """Samples (n,) at 16 kHz."""
    tokens = [TOKENS[c] for c in line.phonemes()]
    fed = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style(styles, line, len(tokens)),
        "speed": np.array([line.speed], np.float32),
    }
    samples = soxr.resample(session.run(None, fed)[0].ravel(), SYNTHESISER_RATE, RATE)
    return np.asarray(samples * (line.peak / max(1e-3, float(np.abs(samples).max()))), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="corpus to write; a name that begins with neural (batches.py)")
    parser.add_argument("--model", type=Path, required=True, help="Kokoro-82M v1.0 as ONNX")
    parser.add_argument("--voices", type=Path, required=True, help="folder of its voices, NAME.bin")
    parser.add_argument("--strings", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    styles = read_voices(args.voices)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(str(args.model), options, providers=["CPUExecutionProvider"])
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in track(range(args.strings), "strings"):
        line, path = plan(index, sorted(styles)), args.out / f"{index:05d}.flac"
        if not path.exists():
            with replacing(path) as part:
                soundfile.write(part, say(session, styles, line), RATE, subtype="PCM_16", format="FLAC")
        row = {"audio": path.name, "text": " ".join(line.words), "speaker": line.speaker, "split": "train"}
        row |= {"seconds": round(soundfile.info(path).duration, 3), "source": "Kokoro-82M", "licence": "Apache-2.0"}
        rows.append(json.dumps(row) + "\n")
    write_text(args.out / "manifest.jsonl", "".join(rows))
    print(f"{len(rows)} strings in {args.out}")


if __name__ == "__main__":
    main()
