"""Single command words by espeak-ng and flite: more voices for words that few people recorded.

    python -m recipes.reference.spoken_words build/commands/commands-synthetic --takes 80

Like synthesize.py, whose format it writes: the same command makes the same clips and goes on where it was. Festival is
not asked, it takes a second for each change of voice. Give the folder to train.py as ``--extra``; its name has to begin
with ``commands``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from pathlib import Path

from recipes.reference.commands import VOCABULARY
from recipes.reference.synthesize import synthesise, write_manifest
from recipes.reference.voices import Clip, espeak_voices, plan_clip, require


def plan(takes: int, seed: int, espeak: list[str]) -> list[Clip]:
    """``takes`` clips of each word, by espeak-ng and flite."""
    clips: list[Clip] = []
    for number, word in enumerate(VOCABULARY):
        drawn = (plan_clip("words", 100_000 * number + i, word, seed, espeak) for i in count())
        clips += islice((clip for clip in drawn if clip.engine != "festival"), takes)
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the clips and their manifest.jsonl")
    parser.add_argument("--takes", type=int, default=80, help="of each word")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="parallel synthesisers")
    args = parser.parse_args()
    require("flite")
    (args.out / "words").mkdir(parents=True, exist_ok=True)
    by_engine: dict[str, list[Clip]] = defaultdict(list)
    for clip in plan(args.takes, args.seed, espeak_voices()):
        by_engine[clip.engine].append(clip)
    batches = [clips[i : i + 24] for clips in by_engine.values() for i in range(0, len(clips), 24)]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = [result for part in pool.map(partial(synthesise, out=args.out), batches) for result in part]
    write_manifest(args.out, results)
    print(f"{sum(reason is None for *_, reason in results)} of {len(results)} clips are usable, in {args.out}")


if __name__ == "__main__":
    main()
