"""Log-probabilities of two engines on whole recordings, caches carried on by each engine itself.

    PYTHONPATH=.:tests python -m engine_logprobs models/reference-bundle build/dev-digits

Not a test: it takes minutes. tests/runtime/engines/test_parity.py does the same on the samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.corpus import read_corpus
from edge.runtime import Bundle
from edge.runtime.audio import Resampler, to_mono_float
from edge.runtime.audio_files import read_blocks
from edge.runtime.engines.base import Backend, initial_state, load_backend
from edge.runtime.engines.config import EngineConfig
from edge.runtime.features import StreamingFbank

CHUNK = 16  # encoder frames
BARS = (1e-3, 2e-2)


def features(path: Path, bundle: Bundle) -> npt.NDArray[np.float32]:
    """(frames, mel) of a recording, with the bundle's dither (seeded: the same for both engines)."""
    blocks = [(to_mono_float(samples), rate) for samples, rate in read_blocks(path)]
    audio = np.concatenate([samples for samples, _ in blocks])
    if blocks[0][1] != bundle.manifest.features.sample_rate:
        resampler = Resampler(blocks[0][1], bundle.manifest.features.sample_rate)
        audio = np.concatenate([resampler.accept(audio), resampler.finish()])
    return StreamingFbank(bundle.manifest.features).accept(audio)


def chunks(engines: list[Backend], bundle: Bundle, feats: npt.NDArray[np.float32], left: int) -> Iterator[float]:
    """Largest difference of a log-probability, per chunk."""
    rate, context = bundle.manifest.stream.subsampling, bundle.manifest.stream.right_context
    states = [initial_state(bundle.manifest.caches, left) for _ in engines]
    for start in range(0, len(feats) - context, CHUNK * rate):
        window = feats[start : start + (CHUNK - 1) * rate + context + 1]
        steps = [engine.step(window, state) for engine, state in zip(engines, states)]
        states = [step.state for step in steps]
        yield float(np.abs(steps[0].log_probs - steps[1].log_probs).max())


def full(engines: list[Backend], bundle: Bundle, feats: npt.NDArray[np.float32]) -> Iterator[float]:
    """The same for one pass over the whole recording."""
    one, two = (engine.step(feats, initial_state(bundle.manifest.caches, -1)).log_probs for engine in engines)
    yield float(np.abs(one - two).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, nargs="+", help="folders with manifest.jsonl (their dev recordings)")
    parser.add_argument("--every", type=int, default=1, help="take each N-th recording")
    parser.add_argument("--left", type=int, default=64, help="frames of left context; -1: all")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    engines = [load_backend(bundle, EngineConfig(name, threads=args.threads)) for name in ("onnxruntime", "openvino")]
    recordings = [u.audio for u in read_corpus(args.data, split="dev")][:: args.every]
    found: dict[str, list[float]] = {"chunks": [], "full context": []}
    for number, path in enumerate(recordings, 1):
        feats = features(Path(path), bundle)
        found["chunks"] += chunks(engines, bundle, feats, args.left)
        found["full context"] += full(engines, bundle, feats)
        if number % 50 == 0 or number == len(recordings):
            print(f"{number}/{len(recordings)} recordings", flush=True)
    for name, values in found.items():
        shares = ", ".join(f"{100 * np.mean(np.array(values) <= bar):.1f} % within {bar:g}" for bar in BARS)
        print(f"{name}: {len(values)} calls, worst {max(values):.2g}, {shares}")


if __name__ == "__main__":
    main()
