"""Noisy copies of a corpus, for the model card: each recording with environmental noise at a fixed ratio.

    python -m recipes.reference.noisy build/dev-digits ../shared/speech/noise build/dev-digits-noisy --snr 20 10 5

Writes OUT-20, OUT-10 and OUT-5 (dB), each with a manifest.jsonl. The noise is that of the corpus' own split, chosen
by a fixed seed, so everyone gets the same audio. The ratio is between the mean power of the recording where it is
not silent (within 40 dB of its loudest 50 ms) and that of the noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track

from recipes.reference.store import read_manifest

RATE = 16000
_WINDOW = RATE // 20
_SILENT_DB = 40.0

Samples = NDArray[np.float64]


def active_power(samples: Samples) -> float:
    """Mean power of the 50 ms windows of (n,) samples that are not silent."""
    size = max(1, len(samples) // _WINDOW) * _WINDOW
    padded = np.zeros(size)
    padded[: min(size, len(samples))] = samples[:size]
    powers = (padded.reshape(-1, _WINDOW) ** 2).mean(1)
    return float(powers[powers >= powers.max() * 10 ** (-_SILENT_DB / 10)].mean())


def mix(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """``speech`` (n,) plus ``noise``, repeated or cut to its length, at ``snr_db``; scaled down where it would clip."""
    repeated = np.resize(noise, len(speech))
    gain = np.sqrt(active_power(speech) / max(1e-12, float((repeated**2).mean())) / 10 ** (snr_db / 10))
    mixed: Samples = speech + gain * repeated
    return mixed / max(1.0, float(np.abs(mixed).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with manifest.jsonl")
    parser.add_argument("noise", type=Path, help="folder with manifest.jsonl")
    parser.add_argument("out", type=Path, help="the ratio is added to this name")
    parser.add_argument("--snr", type=float, nargs="+", default=[20.0, 10.0, 5.0], help="dB")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--match", default="", help="only recordings with this in their path")
    args = parser.parse_args()
    rows = [r for r in read_manifest(args.corpus) if r["split"] == args.split and args.match in r["audio"]]
    noises = [r["audio"] for r in read_manifest(args.noise) if r["split"] == args.split]
    for snr in args.snr:
        rng = np.random.default_rng(11)
        out = args.out.with_name(f"{args.out.name}-{snr:g}")
        part = out.with_name(out.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        lines = []
        for i, row in enumerate(track(rows, description=out.name)):
            speech, rate = soundfile.read(args.corpus / row["audio"])
            noise, noise_rate = soundfile.read(args.noise / noises[int(rng.integers(len(noises)))])
            if rate != RATE or noise_rate != RATE or speech.ndim != 1 or noise.ndim != 1:
                raise ValueError(f"{row['audio']}: expected {RATE} Hz mono for speech and noise, found {rate} Hz")
            start = int(rng.integers(max(1, len(noise) - len(speech))))
            name = f"{i:04d}-{Path(row['audio']).stem}.flac"
            soundfile.write(part / name, mix(speech, noise[start:], snr), RATE, subtype="PCM_16")
            lines.append(json.dumps({**row, "audio": name}) + "\n")
        (part / "manifest.jsonl").write_text("".join(lines))
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)


if __name__ == "__main__":
    main()
