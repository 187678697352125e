"""Word error rate of a bundle on a corpus, through the streaming recognizer a user runs.

python -m recipes.reference.evaluate build/dev-digits --bundle models/reference-bundle
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import jiwer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge.runtime import DecodeOptions, Recognizer
from recipes.reference.store import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with manifest.jsonl (audio, text, speaker, split)")
    parser.add_argument("--bundle", type=Path, default=Path("models/reference-bundle"))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--chunk-ms", type=float, default=640.0)
    parser.add_argument("--full-context", action="store_true")
    parser.add_argument("--no-rescoring", action="store_true")
    parser.add_argument("--no-reencode", action="store_true", help="rescore on the encoder output of the chunks")
    parser.add_argument("--limit", type=int, default=0, help="only the first N recordings")
    parser.add_argument("--errors", type=Path, help="write every wrong recording with its text as JSON lines")
    args = parser.parse_args()
    recognizer = Recognizer.load(args.bundle)
    decode = DecodeOptions(
        chunk_ms=None if args.full_context else args.chunk_ms,
        full_context=args.full_context,
        rescoring=not args.no_rescoring,
        reencode=False if args.no_reencode else None,
    )
    rows = [r for r in read_manifest(args.corpus) if r["split"] == args.split]
    rows = rows[: args.limit or len(rows)]
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    wrong = []
    for row in track(rows, description=args.corpus.name):
        text = " ".join(r.text for r in recognizer.transcribe(args.corpus / row["audio"], options=decode))
        group = row["speaker"].split("-")[0]
        pairs[group].append((row["text"], text))
        if text != row["text"]:
            wrong.append({"audio": row["audio"], "spoken": row["text"], "recognised": text})
    if args.errors:
        args.errors.write_text("".join(json.dumps(w) + "\n" for w in wrong))
    mode = "full context" if args.full_context else f"{args.chunk_ms:g} ms chunks"
    second = "CTC only" if args.no_rescoring else "rescoring"
    if recognizer.prepare(decode).reencode:
        second = "second pass in full context, rescoring"
    table = Table(title=f"{args.corpus.name}, {mode}, {second}")
    for column in ("speakers", "recordings", "words", "WER %", "sub", "del", "ins"):
        table.add_column(column, justify="left" if column == "speakers" else "right")
    groups = dict(sorted(pairs.items()))
    if len(groups) > 1:
        groups["all"] = [p for own in pairs.values() for p in own]
    for name, own in groups.items():
        result = jiwer.process_words([spoken for spoken, _ in own], [text for _, text in own])
        words = sum(len(spoken.split()) for spoken, _ in own)
        table.add_row(
            name,
            str(len(own)),
            str(words),
            f"{100 * result.wer:.2f}",
            str(result.substitutions),
            str(result.deletions),
            str(result.insertions),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
