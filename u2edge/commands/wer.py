"""``u2edge wer``: tables for people, JSON for reports, an exit code for CI."""

from __future__ import annotations

import enum
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.runtime.engines.config import EngineConfig
from edge.system.files import write_json
from edge.system.progress import Ticker
from u2edge.options import (
    DEFAULT_BUNDLE,
    Baseline,
    BaselineEngine,
    Beam,
    BundleOption,
    ChunkMs,
    Device,
    DeviceOption,
    Engine,
    EngineOption,
    Json,
    LeftChunks,
    Limit,
    Match,
    Precision,
    PrecisionOption,
    Punctuation,
    PunctuationOption,
    Rate,
    RateOption,
    Split,
    Threads,
    baseline_config,
)

if TYPE_CHECKING:
    from quant.measure.wer.measure import WerReport

EXAMPLE = "u2edge wer --bundle build/int8 --baseline build/fp32 --data speech/dev --max-drop 0.2"


class Contexts(enum.StrEnum):
    """How recordings are encoded."""

    streaming = "streaming"
    full = "full"
    both = "both"


class Switch(enum.StrEnum):
    """On, off, or both measured."""

    on = "on"
    off = "off"
    both = "both"


def wer(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", "-d", help="Measure on this manifest (JSONL with audio and text), or its folder; repeatable."
        ),
    ],
    bundle: BundleOption = DEFAULT_BUNDLE,
    baseline: Baseline = None,
    split: Split = "dev",
    limit: Limit = 0,
    match: Match = "",
    mode: Annotated[
        Contexts, typer.Option(help="Decode in chunks, the whole recording at once, or both.")
    ] = Contexts.both,
    rescoring: Annotated[
        Switch, typer.Option(help="Decode with the attention decoders, with CTC only, or both.")
    ] = Switch.both,
    reencode: Annotated[
        bool | None,
        typer.Option(
            "--reencode/--no-reencode",
            help="Measure the second pass in full context too. [default: when a bundle recommends it]",
        ),
    ] = None,
    chunk_ms: ChunkMs = None,
    left_chunks: LeftChunks = -1,
    beam: Beam = 10,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="End with exit code 1 when the error rate of any mode rises by more than this many points."
        ),
    ] = None,
    rate: RateOption = Rate.auto,
    punctuation: PunctuationOption = Punctuation.keep,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report recordings that cannot be used and leave them out.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Keep transcripts in this file; a run that was interrupted goes on from it.")
    ] = None,
    json: Json = None,
    errors: Annotated[Path | None, typer.Option(help="Write every wrong recording, one JSON object per line.")] = None,
    engine: EngineOption = Engine.onnxruntime,
    device: DeviceOption = Device.CPU,
    precision: PrecisionOption = Precision.f32,
    baseline_engine: BaselineEngine = None,
    threads: Threads = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=256, help="Use this many processes; each has one thread unless told otherwise.")
    ] = 1,
) -> None:
    """Error rates (WER, or CER and MER as the language is written) on a corpus: streaming and full context, with and
    without rescoring, one bundle or two.

    Exit code 1 when a mode lost more than --max-drop.
    """
    from calibration.corpus import read_corpus
    from edge.runtime import Recognizer
    from quant.measure.wer.compare import Selection, report, write_errors
    from quant.measure.wer.measure import MeasureError, WerOptions, choose_modes, measure_wer
    from quant.measure.wer.scoring import choose_scoring
    from quant.measure.wer.tables import print_report

    config = EngineConfig(engine.value, device.value, threads or (1 if jobs > 1 else None), precision.value)
    other = baseline_config(config, baseline, baseline_engine)
    if max_drop is not None and baseline is None:
        raise MeasureError("--max-drop: expected a bundle to compare with, found none; add --baseline BUNDLE")
    selection = Selection(tuple(data), None if split == "all" else split, limit, match)
    corpus = read_corpus(selection.manifests, selection.split, selection.limit, selection.match)
    scoring = choose_scoring((u.text for u in corpus), rate.value, punctuation.value)
    loaded = [Recognizer.load(path, how) for path, how in ((baseline, other), (bundle, config)) if path is not None]
    modes = choose_modes([r.manifest for r in loaded], mode.value, rescoring.value, reencode)
    options = WerOptions(chunk_ms, left_chunks, beam)
    measured = []
    for position, recognizer in enumerate(loaded, 1):
        title = f"{recognizer.manifest.name} ({position} of {len(loaded)})" if len(loaded) > 1 else "transcribing"
        with Ticker(title) as ticker:
            found = measure_wer(
                recognizer,
                corpus,
                modes,
                options,
                jobs=jobs,
                skip_bad=skip_bad,
                cache=cache,
                progress=ticker.show,
            )
        measured.append(found)
        corpus = [u for u in corpus if u.name not in found.skipped]
        for reason in found.skipped.values():
            print(f"skipped: {reason}", file=sys.stderr)
    result = report(corpus, selection, measured[-1], measured[0] if baseline is not None else None, scoring)
    if json is not None:
        write_json(json, asdict(result))
    if errors is not None:
        write_errors(result, errors, scoring)
    print_report(result)
    if max_drop is not None and (over := _over(result, max_drop)):
        print(f"error: {scoring.title} rises by more than {max_drop:g} points: {', '.join(over)}", file=sys.stderr)
        raise typer.Exit(1)


def _over(result: WerReport, max_drop: float) -> list[str]:
    """Modes that lost more than ``max_drop`` points; raises MeasureError."""
    from quant.measure.wer.measure import MeasureError

    drops = [(m.difference.points, m.key) for m in result.modes if m.difference and m.difference.points is not None]
    if not drops:
        raise MeasureError("--max-drop: expected a corpus with reference words, found none")
    return [f"{points:.2f} in {key}" for points, key in drops if points > max_drop + 1e-9]
