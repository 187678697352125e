"""One or two measurements against the references, and everything about them in one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.corpus import Utterance, digest
from edge.system.commandline import command_line
from edge.system.files import write_text
from quant.measure.bench.machine import machine, versions
from quant.measure.wer.measure import (
    CorpusInfo,
    GroupReport,
    MeasureError,
    Measurement,
    Mode,
    ModeReport,
    Transcript,
    UtteranceTexts,
    WerReport,
)
from quant.measure.wer.score import (
    RESAMPLES,
    SEED,
    WORDS,
    Alignment,
    DamagedUtterance,
    align,
    damaged_words,
    difference,
    rate,
)
from quant.measure.wer.scoring import Scoring, punctuation_hint


@dataclass(frozen=True)
class Selection:
    """How the corpus was chosen from its manifests."""

    manifests: tuple[Path, ...]
    split: str | None = None
    limit: int = 0
    match: str = ""


def report(
    corpus: Sequence[Utterance],
    selection: Selection,
    bundle: Measurement,
    baseline: Measurement | None = None,
    scoring: Scoring = WORDS,
) -> WerReport:
    """Everything ``u2edge wer --json`` writes.

    Raises:
        MeasureError: as :func:`compare`.
    """
    several = len(selection.manifests) > 1
    modes = compare(corpus, bundle, baseline, several, scoring)
    new = {t.name: t for t in bundle.transcripts}
    old = {t.name: t for t in baseline.transcripts} if baseline is not None else None
    used = [u for u in corpus if u.name in new and (old is None or u.name in old)]
    utterances = tuple(
        UtteranceTexts(
            name=u.name,
            speaker=u.speaker,
            group=group_of(u, several),
            seconds=new[u.name].seconds,
            reference=u.text,
            bundle=new[u.name].texts,
            baseline=old[u.name].texts if old is not None else None,
        )
        for u in used
    )
    info = CorpusInfo(
        manifests={str(m): digest(m) for m in selection.manifests},
        split=selection.split,
        limit=selection.limit,
        match=selection.match,
        utterances=len(used),
        without_text=sum(not scoring.tokens(u.text) for u in used),
        words=modes[0].bundle.words,
        seconds=sum(u.seconds for u in utterances),
        speakers=len({u.speaker for u in used if u.speaker}),
        groups={name: group.bundle.utterances for name, group in modes[0].groups.items()},
        skipped=bundle.skipped | (baseline.skipped if baseline is not None else {}),
    )
    return WerReport(
        bundle=bundle.bundle,
        baseline=baseline.bundle if baseline is not None else None,
        corpus=info,
        options=bundle.options,
        modes=modes,
        utterances=utterances,
        normalisation=scoring.description,
        rate=scoring.rate,
        hint="" if scoring.punctuation == "drop" else _punctuation_hint(used, new),
        bootstrap={"resamples": RESAMPLES, "seed": SEED, "confidence": 0.95, "unit": "utterance"},
        command=command_line(),
        versions=versions(),
        machine=machine(),
        inference=bundle.inference,
        baseline_inference=baseline.inference if baseline is not None else None,
        compute_s={"bundle": bundle.compute_s} | ({"baseline": baseline.compute_s} if baseline is not None else {}),
    )


def compare(
    corpus: Sequence[Utterance],
    bundle: Measurement,
    baseline: Measurement | None = None,
    several: bool = False,
    scoring: Scoring = WORDS,
) -> tuple[ModeReport, ...]:
    """Both measurements against the references, mode by mode, on the recordings that both could use.

    Args:
        corpus: that both were measured on.
        bundle, baseline: measurements with the same modes and options.
        several: the corpus has several manifests; groups are then formed within each.
        scoring: what counts as an error.

    Raises:
        MeasureError: other modes, options or recordings.
    """
    if baseline is not None and (bundle.modes, bundle.options) != (baseline.modes, baseline.options):
        found = f"{_described(bundle)} and {_described(baseline)}"
        raise MeasureError(f"expected measurements of the same modes and options, found {found}")
    measured = [bundle] if baseline is None else [bundle, baseline]
    used = set.intersection(*({t.name for t in m.transcripts} for m in measured))
    corpus = [u for u in corpus if u.name in used]
    if not corpus:
        raise MeasureError("expected recordings that both bundles transcribed, found none")
    return tuple(_mode_report(mode, corpus, bundle, baseline, several, scoring) for mode in bundle.modes)


def group_of(utterance: Utterance, several: bool = False) -> str:
    """The source of a recording: its speaker up to the first "-" (fsdd-theo: fsdd), else the folder it lies in, else
    "all"; after the corpus's folder when there are ``several``."""
    parts = utterance.name.split("/")
    corpus = parts.pop(0) + "/" if several and len(parts) > 1 else ""
    folder = parts[0] if len(parts) > 1 else "all"
    return corpus + (utterance.speaker.split("-")[0] or folder)


def _described(measurement: Measurement) -> str:
    modes = " ".join(mode.key for mode in measurement.modes)
    return f"{modes} with {measurement.options}"


@dataclass(frozen=True)
class _Side:
    """One bundle in one mode."""

    texts: dict[str, str]  # by name, normalised
    alignments: dict[str, Alignment]


def _side(corpus: Sequence[Utterance], measurement: Measurement, mode: Mode, scoring: Scoring) -> _Side:
    texts = {t.name: scoring.normalise(t.texts[mode.key]) for t in measurement.transcripts}
    aligned = align([u.text for u in corpus], [texts[u.name] for u in corpus], scoring)
    return _Side(texts, {u.name: a for u, a in zip(corpus, aligned)})


def _mode_report(
    mode: Mode,
    corpus: Sequence[Utterance],
    bundle: Measurement,
    baseline: Measurement | None,
    several: bool,
    scoring: Scoring,
) -> ModeReport:
    new = _side(corpus, bundle, mode, scoring)
    old = _side(corpus, baseline, mode, scoring) if baseline is not None else None
    groups: dict[str, list[Utterance]] = {}
    for utterance in corpus:
        group = group_of(utterance, several)
        groups.setdefault(group, []).append(utterance)
        if several and "/" in group:
            groups.setdefault(group.split("/")[0], []).append(utterance)
    whole = _group(corpus, new, old)
    return ModeReport(
        key=mode.key,
        title=mode.title,
        bundle=whole.bundle,
        baseline=whole.baseline,
        difference=whole.difference,
        groups={name: _group(groups[name], new, old) for name in sorted(groups)},
        words=damaged_words(
            list(new.alignments.values()),
            list(old.alignments.values()) if old else None,
            [u.text for u in corpus],
            scoring=scoring,
        ),
        utterances=_damaged_utterances(corpus, new, old, scoring),
    )


def _group(utterances: Sequence[Utterance], new: _Side, old: _Side | None) -> GroupReport:
    names = [u.name for u in utterances]
    after = [new.alignments[name] for name in names]
    if old is None:
        return GroupReport(rate(after), None, None)
    before = [old.alignments[name] for name in names]
    changed = sum(new.texts[name] != old.texts[name] for name in names)
    return GroupReport(rate(after), rate(before), difference(after, before, changed))


def _damaged_utterances(
    corpus: Sequence[Utterance], new: _Side, old: _Side | None, scoring: Scoring, count: int = 20
) -> tuple[DamagedUtterance, ...]:
    """Those whose errors rise most; without baseline, those with most errors."""
    listed = []
    for u in corpus:
        errors = new.alignments[u.name].errors
        before = old.alignments[u.name].errors if old else None
        if errors > (before or 0):
            text = old.texts[u.name] if old else None
            listed.append(DamagedUtterance(u.name, scoring.normalise(u.text), new.texts[u.name], text, errors, before))
    listed.sort(key=lambda d: (-(d.bundle_errors - (d.baseline_errors or 0)), -d.bundle_errors, d.name))
    return tuple(listed[:count])


def _punctuation_hint(used: Sequence[Utterance], transcripts: dict[str, Transcript]) -> str:
    texts = [text for u in used for text in transcripts[u.name].texts.values()]
    return punctuation_hint([u.text for u in used], texts)


def write_errors(result: WerReport, path: Path, scoring: Scoring = WORDS) -> None:
    """One line per recording and mode whose text is not the reference."""
    lines = []
    for mode in result.modes:
        for u in result.utterances:
            if scoring.tokens(u.bundle[mode.key]) != scoring.tokens(u.reference):
                row = {"audio": u.name, "mode": mode.key, "reference": u.reference, "bundle": u.bundle[mode.key]}
                if u.baseline is not None:
                    row["baseline"] = u.baseline[mode.key]
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
