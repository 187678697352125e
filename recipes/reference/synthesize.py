"""Make the synthetic speech of the training set with the free synthesisers of Debian main.

    python -m recipes.reference.synthesize OUT_DIR --digits 6000 --sentences 4000 --seed 1 --jobs 2 \
        --vocabulary ../shared/speech/sentences-human/manifest.jsonl

Writes 16 kHz mono 16-bit FLAC under OUT_DIR/digits and OUT_DIR/sentences and OUT_DIR/manifest.jsonl in the format of
../shared/speech. About half of the clips are espeak-ng (many accents and variants), 30 % flite and 20 % festival. Text,
voice and prosody of a clip depend only on the seed and its index, and the file name holds a hash of them, so running
the same command again resumes an interrupted run. Clips that are silent, clipped or of implausible length are dropped.

Few of these voices are recordings of distinct people: they widen the training set but are no evidence about real
speech.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from edge.system.progress import Ticker
from recipes.reference.texts import Vocabulary, digit_string, sentence
from recipes.reference.voices import Clip, SynthesisError, check_engines, plan_clip, speak

SAMPLE_RATE = 16_000  # Hz
_SOURCES = {  # engine: source and licence in the manifest
    "espeak": ("espeak-ng", "output of espeak-ng (GPL-3.0-or-later program; its licence does not cover the audio)"),
    "flite": ("flite", "output of flite and its CMU voices (permissive, BSD-like)"),
    "festival": ("festival", "output of festival and CMU/CSTR voices (permissive, X11/BSD-like)"),
}
_BATCH = 24  # clips per task; festival needs 1 to 2 s to start, so a batch is one festival process
Result = tuple[Clip, float, str | None]  # clip, seconds, why it was dropped (None: kept)


def check_audio(samples: npt.NDArray[np.float32], clip: Clip) -> str | None:
    """Return why 16 kHz mono `samples (n,)` are unusable (silent, clipped, implausible duration), or None."""
    if not samples.size or not np.isfinite(samples).all() or np.abs(samples).max() < 0.02:
        return "silent"
    if np.mean(np.abs(samples) > 0.999) > 0.001:
        return "clipped"
    size = SAMPLE_RATE // 100
    frames = samples[: samples.size // size * size].reshape(-1, size)
    power = np.square(frames).mean(axis=1)
    active = np.flatnonzero(power > power.max() * 1e-4)
    span = (active[-1] - active[0] + 1) / 100 if active.size else 0.0  # s from the first to the last sound
    pauses = 0.6 * (clip.spoken.count(",") + clip.spoken[:-1].count("."))  # s, generous
    text = clip.text
    units, low, high = (len(text.split()), 0.14, 0.95) if clip.kind == "digits" else (len(text), 0.03, 0.2)
    if not units * low <= span <= units * high + pauses + 0.2:
        return "implausible duration"
    # CTC over characters needs a frame per character and one between equal neighbours, at 40 ms per encoder frame.
    needed = len(text) + sum(a == b for a, b in pairwise(text))
    return "too fast for CTC" if samples.size / SAMPLE_RATE * 25 - 2 < needed else None


def _convert(source: Path, clip: Clip, target: Path) -> tuple[float, str | None]:
    """Turn an engine's WAV into the final FLAC; return its seconds and the reason why it was dropped, if it was."""
    if not source.is_file() or source.stat().st_size <= 44:
        return 0.0, "no audio"
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate * clip.scale, SAMPLE_RATE).astype(np.float32)
    peak = float(np.abs(mono).max(initial=0.0))
    reason = check_audio(mono, clip)
    if reason:
        return 0.0, reason
    if peak > 0.98:  # resampling can overshoot full scale by a little
        mono *= 0.98 / peak
    partial_file = target.with_suffix(".part")
    soundfile.write(partial_file, mono, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    partial_file.replace(target)
    return mono.size / SAMPLE_RATE, None


def _existing_seconds(path: Path) -> float | None:
    """Return the duration of a finished clip in s, None when it is absent or does not decode."""
    try:
        samples, rate = soundfile.read(path, dtype="int16")
    except (OSError, soundfile.SoundFileError):
        return None
    return samples.size / SAMPLE_RATE if rate == SAMPLE_RATE and samples.ndim == 1 and samples.size else None


def synthesise(clips: Sequence[Clip], out: Path) -> list[Result]:
    """Make the clips (all of one engine) that do not exist yet; return the results of all."""
    results: list[Result] = [
        (clip, seconds, None) for clip in clips if (seconds := _existing_seconds(out / clip.path)) is not None
    ]
    kept = {clip for clip, _, _ in results}
    if todo := [clip for clip in clips if clip not in kept]:
        with tempfile.TemporaryDirectory(prefix="synthesize-") as folder:
            speak(todo, Path(folder))
            for position, clip in enumerate(todo):
                results.append((clip, *_convert(Path(folder) / f"{position}.wav", clip, out / clip.path)))
    return results


def _batches(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """Yield batches of one engine, and of one voice for festival, which is slow to change voices."""
    by_engine: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        key = clip.speaker if clip.engine == "festival" else clip.engine
        by_engine[key].append(clip)
        if len(by_engine[key]) == _BATCH:
            yield by_engine.pop(key)
    yield from by_engine.values()


def write_manifest(out: Path, results: Sequence[Result]) -> None:
    """Write OUT/manifest.jsonl: the clips that were kept."""
    lines = []
    for clip, seconds, reason in sorted(results, key=lambda result: (result[0].kind, result[0].index)):
        if reason is None:
            entry = {
                "audio": clip.path,
                "text": clip.text,
                "speaker": clip.speaker,
                "split": "train",
                "seconds": round(seconds, 3),
                "source": _SOURCES[clip.engine][0],
                "licence": _SOURCES[clip.engine][1],
            }
            lines.append(json.dumps(entry) + "\n")
    partial_file = out / "manifest.jsonl.part"
    partial_file.write_text("".join(lines), encoding="utf-8")
    partial_file.replace(out / "manifest.jsonl")


def _print_table(results: Sequence[Result]) -> None:
    """Print clips, seconds, seconds per word and dropped clips per voice; espeak-ng variants are summed per accent."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0])
    for clip, seconds, reason in results:
        row = rows[clip.speaker.split("+")[0]]
        if reason is None:
            row[0] += 1
            row[1] += seconds
            row[2] += len(clip.text.split())
        row[3] += reason is not None
    print(f"{'voice':34} {'clips':>7} {'seconds':>9} {'s/word':>7} {'dropped':>8}")
    for voice, (count, seconds, words, dropped) in sorted(rows.items()):
        print(f"{voice:34} {count:7.0f} {seconds:9.0f} {seconds / max(words, 1):7.2f} {dropped:8.0f}")
    kept = [seconds for _, seconds, reason in results if reason is None]
    print(
        f"{len(kept)} clips, {sum(kept) / 3600:.2f} h; dropped: {dict(Counter(r for *_, r in results if r)) or 'none'}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.reference.synthesize", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--digits", type=int, default=0, help="number of digit strings")
    parser.add_argument("--sentences", type=int, default=0, help="number of short sentences")
    parser.add_argument("--max-digits", type=int, default=6, choices=range(1, 9), help="longest digit string")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="parallel synthesisers")
    parser.add_argument("--vocabulary", type=Path, nargs="*", default=[], help="manifests whose words to recombine")
    options = parser.parse_args(arguments)
    try:
        espeak = check_engines()
        vocabulary = Vocabulary.read(options.vocabulary)
        makers: list[tuple[str, int, Callable[[int], str]]] = [
            ("digits", options.digits, lambda index: digit_string(options.seed, index, options.max_digits)),
            ("sentences", options.sentences, lambda index: sentence(options.seed, index, vocabulary)),
        ]
        clips = [
            plan_clip(kind, i, make(i), options.seed, espeak) for kind, count, make in makers for i in range(count)
        ]
        for kind in ("digits", "sentences"):
            (options.out / kind).mkdir(parents=True, exist_ok=True)
        results: list[Result] = []
        with ThreadPoolExecutor(options.jobs) as pool, Ticker("clips") as ticker:
            try:
                for batch in pool.map(partial(synthesise, out=options.out), list(_batches(clips))):
                    results += batch
                    ticker.show(len(results), len(clips))
            except BaseException:  # do not finish the queue after an error or Ctrl-C
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except (SynthesisError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_manifest(options.out, results)
    _print_table(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
