"""Who is trained on, who chooses, who only judges: an honest split of the human speech, by speaker.

    python -m recipes.reference.split ../shared/speech build/commands/speech

writes one folder of manifests that train.py, devset.py and evaluate.py read like ``../shared/speech`` itself. In it a
speaker is either ``train``, ``dev`` (looked at to choose weights) or ``test`` (looked at once: when a card is written).

* Speech Commands: the official validation speakers are never trained on. They and, for words they hardly say, others
  are dealt to dev and test until both have 25 clips of a word. Of a word with fewer than 100 clips both get at least a
  sixth; the rest is what there is to learn it from.
* Free Spoken Digit Dataset: "theo" and the seven dev speakers of speechocean762 chose weights before, they stay in dev.
  "lucas" and eight more of speechocean762 judge; training heard them until November 2026, so
  nothing may be said about them of weights that descend from ``models/reference``.
* Sentences of a speaker follow his digits; other sentences, keywords (nobody knows whose) and noise keep their split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

CLIPS = 25  # of each word in dev and in test
PLENTY = 4 * CLIPS  # of a word with fewer clips dev and test get a sixth each
LONGEST = 20  # clips; who recorded more is worth more to training
JUDGES = ("fsdd-lucas",)
MANDARIN = 8  # speakers of speechocean762 in test
CORPORA = ("commands-human", "digits-human", "sentences-human", "keywords-human", "noise")


def _order(speaker: str) -> str:
    """A fixed random order of speakers that no corpus can have sorted by."""
    return hashlib.sha256(f"split:{speaker}".encode()).hexdigest()


def deal_commands(rows: Iterable[Row]) -> dict[str, str]:
    """Speaker -> part, of Speech Commands."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    validation = set()
    for row in rows:
        words[row["speaker"]][row["text"]] += 1
        if row["split"] == "dev":
            validation.add(row["speaker"])
    total = sum(words.values(), Counter[str]())
    quota = {word: CLIPS if count >= PLENTY else count // 6 for word, count in total.items()}
    # Strings are joined of one speaker's clips: who has one is of no use to dev and test.
    waiting = [
        s for s in sorted(words, key=lambda s: (s not in validation, _order(s))) if 2 <= words[s].total() <= LONGEST
    ]
    parts: dict[str, str] = {}
    have: dict[str, Counter[str]] = {"dev": Counter(), "test": Counter()}

    def deal(speaker: str, part: str) -> None:
        parts[speaker] = part
        have[part] += words[speaker]

    rare_first = sorted(total, key=lambda w: (total[w], w))  # speakers of rare words say the frequent ones, too
    for word in rare_first:
        for speaker in waiting:
            short = [part for part in ("test", "dev") if have[part][word] < quota[word]]
            if not short:
                break
            if speaker not in parts and words[speaker][word]:
                deal(speaker, min(short, key=lambda part: have[part][word]))
    for speaker in sorted(validation - parts.keys(), key=_order):
        deal(speaker, "dev" if words[speaker].total() > LONGEST else min(have, key=lambda part: have[part].total()))
    return {speaker: parts.get(speaker, "train") for speaker in words}


def deal_digits(rows: Iterable[Row]) -> dict[str, str]:
    """Speaker -> part, of ``digits-human``."""
    parts: dict[str, str] = {}
    strings: Counter[str] = Counter()
    for row in rows:
        speaker = row["speaker"]
        parts[speaker] = "test" if speaker in JUDGES else row["split"]
        if speaker.startswith("so762-"):
            strings[speaker] += 1
    waiting = [s for s in sorted(strings, key=_order) if parts[s] == "train" and strings[s] >= 2]
    for speaker in waiting[:MANDARIN]:
        parts[speaker] = "test"
    return parts


def split(corpora: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Rows of each corpus with ``split`` train, dev or test; a speaker has the same one in all of them."""
    parts = deal_commands(corpora.get("commands-human", [])) | deal_digits(corpora.get("digits-human", []))
    known = {"commands-human", "digits-human", "sentences-human"}  # the others have no speakers
    return {
        name: [{**row, "split": parts.get(row["speaker"], row["split"])} if name in known else row for row in rows]
        for name, rows in corpora.items()
    }


def read(speech: Path) -> dict[str, list[Row]]:
    """The manifests under ``speech``, audio as absolute paths.

    Raises:
        FileNotFoundError: a corpus is missing.
    """
    corpora: dict[str, list[Row]] = {}
    for name in CORPORA:
        folder = (speech / name).resolve()
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        corpora[name] = [{**row, "audio": str(folder / row["audio"])} for row in map(json.loads, lines)]
    return corpora


def write(corpora: Mapping[str, list[Row]], out: Path) -> None:
    """One folder with ``manifest.jsonl`` per corpus."""
    for name, rows in corpora.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / name / "manifest.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="the folder of digits-human, commands-human, …")
    parser.add_argument("out", type=Path, help="folder for the manifests")
    args = parser.parse_args()
    corpora = split(read(args.speech))
    write(corpora, args.out)
    for name, rows in corpora.items():
        for part in ("train", "dev", "test"):
            own = [row for row in rows if row["split"] == part]
            if own:
                speakers, minutes = {row["speaker"] for row in own}, sum(row["seconds"] for row in own) / 60
                print(f"{name:16} {part:6}{len(own):6} clips{len(speakers):6} speakers{minutes:8.1f} min")


if __name__ == "__main__":
    main()
