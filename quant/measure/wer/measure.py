"""Word error rates through the recognizer that a user runs, in every mode of decoding.

``measure_wer`` transcribes a corpus with one bundle; ``quant.measure.wer.compare`` sets one or two such measurements
against the references. Neither needs torch. Results are frozen dataclasses of plain values (``dataclasses.asdict`` is
JSON).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from calibration.corpus import Utterance, tolerated
from edge.runtime import AudioError, Clip, DecodeOptions, Recognizer, audio_seconds
from edge.runtime.bundle import sha256
from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import EdgeError
from edge.runtime.manifest import Manifest
from quant.measure.bench.machine import BundleId, bundle_id, versions
from quant.measure.wer.decode import Cache, Task, digest, transcribe_all
from quant.measure.wer.score import WORDS, DamagedUtterance, DamagedWord, Difference, Rate, align, rate
from quant.measure.wer.scoring import RateName, Scoring

Context = Literal["streaming", "full"]
Search = Literal["ctc", "rescoring", "second_pass"]

SCHEMA_VERSION = 1


class MeasureError(EdgeError, ValueError):
    """A measurement that cannot be made as asked, or two that cannot be compared."""


@dataclass(frozen=True)
class Mode:
    """One way to decode: ``key`` names it in JSON and in errors."""

    context: Context  # in chunks, or the whole recording at once
    search: Search  # CTC alone; rescored on the chunks' encoder output; encoded again as a whole, then rescored

    @property
    def key(self) -> str:
        """streaming/ctc, streaming/rescoring, streaming/second_pass, full/ctc, full/rescoring."""
        return f"{self.context}/{self.search}"

    @property
    def title(self) -> str:
        """For people."""
        context = {"streaming": "streaming", "full": "full context"}[self.context]
        search = {"ctc": "CTC only", "rescoring": "rescoring", "second_pass": "second pass"}[self.search]
        return f"{context}, {search}"


@dataclass(frozen=True)
class WerOptions:
    """How to decode, the same for every bundle that is compared."""

    chunk_ms: float | None = None  # None: 640 ms, or what the model was trained for
    left_chunks: int = -1
    beam: int = 10

    def decode(self, mode: Mode) -> DecodeOptions:
        """What the recognizer is asked for in ``mode``."""
        full = mode.context == "full"
        return DecodeOptions(
            chunk_ms=None if full else self.chunk_ms,
            full_context=full,
            left_chunks=-1 if full else self.left_chunks,
            beam=self.beam,
            rescoring=mode.search != "ctc",
            reencode=mode.search == "second_pass",
        )


@dataclass(frozen=True)
class Transcript:
    """What one bundle made of one recording; ``texts`` by mode key, as the recognizer wrote them."""

    name: str
    seconds: float  # of audio
    texts: dict[str, str]


@dataclass(frozen=True)
class Measurement:
    """One bundle on one corpus: transcripts in the order of the corpus."""

    bundle: BundleId
    modes: tuple[Mode, ...]
    options: WerOptions
    transcripts: tuple[Transcript, ...]
    skipped: dict[str, str]  # name -> why its audio could not be used
    compute_s: float  # wall clock of the transcribing that was not taken from a cache
    inference: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True)
class GroupReport:
    """Utterances of one source of recordings (``group_of``)."""

    bundle: Rate
    baseline: Rate | None
    difference: Difference | None


@dataclass(frozen=True)
class ModeReport:
    """One mode on the whole corpus."""

    key: str  # Mode.key
    title: str
    bundle: Rate
    baseline: Rate | None
    difference: Difference | None
    groups: dict[str, GroupReport]
    words: tuple[DamagedWord, ...]
    utterances: tuple[DamagedUtterance, ...]


@dataclass(frozen=True)
class UtteranceTexts:
    """All texts of one recording, by mode key."""

    name: str
    speaker: str
    group: str
    seconds: float
    reference: str
    bundle: dict[str, str]
    baseline: dict[str, str] | None


@dataclass(frozen=True)
class CorpusInfo:
    """What was measured on."""

    manifests: dict[str, str]  # path -> SHA-256
    split: str | None
    limit: int
    match: str
    utterances: int
    without_text: int  # utterances with an empty reference: every word recognised in them is an insertion
    words: int
    seconds: float
    speakers: int
    groups: dict[str, int]  # utterances
    skipped: dict[str, str]  # name -> why


@dataclass(frozen=True)
class WerReport:
    """Everything ``u2edge wer --json`` writes."""

    bundle: BundleId
    baseline: BundleId | None
    corpus: CorpusInfo
    options: WerOptions
    modes: tuple[ModeReport, ...]
    normalisation: str  # what was done to both texts, and what counts as a word
    bootstrap: dict[str, Any]  # resamples, seed, confidence, unit
    command: str
    versions: dict[str, str]
    machine: dict[str, Any]
    compute_s: dict[str, float]  # bundle, baseline: transcribing, without what came from a cache
    utterances: tuple[UtteranceTexts, ...] = ()  # left out of report.json
    inference: EngineConfig = field(default_factory=EngineConfig)
    baseline_inference: EngineConfig | None = None
    rate: RateName = "wer"  # what ``Rate.wer`` is
    hint: str = ""  # what the references and the texts do not have in common, "" for nothing
    schema_version: int = SCHEMA_VERSION


Progress = Callable[[float, float], None]
"""Called with the seconds of audio done, and in all."""


def choose_modes(
    manifests: Sequence[Manifest],
    context: Literal["streaming", "full", "both"] = "both",
    rescoring: Literal["on", "off", "both"] = "both",
    reencode: bool | None = None,
) -> tuple[Mode, ...]:
    """The modes to measure on bundles that are compared.

    Args:
        manifests: of all bundles. With "both", a context that one of them does not support is left out.
        context: streaming, full, or both.
        rescoring: with it, without, or both.
        reencode: measure the second pass too; None: when one of the bundles recommends it.

    Raises:
        MeasureError: no context that all bundles support.
    """
    supported = {
        "streaming": all(m.stream.streaming for m in manifests),
        "full": all(not (m.stream.streaming and m.stream.static_chunk) for m in manifests),
    }
    contexts: list[Context] = [c for c in ("streaming", "full") if context == c or (context == "both" and supported[c])]
    if not contexts:
        names = " and ".join(m.name for m in manifests)
        raise MeasureError(f"{names}: expected bundles that all stream, or all decode in full context; found neither")
    decoders = all(m.decoder is not None for m in manifests)
    if rescoring == "on" and not decoders:
        names = ", ".join(m.name for m in manifests if m.decoder is None)
        raise MeasureError(f"{names}: expected an attention decoder, found CTC only; add --rescoring off")
    if reencode is None:
        reencode = supported["full"] and any(m.stream.reencode for m in manifests)
    modes = []
    for each in contexts:
        if rescoring != "on":
            modes.append(Mode(each, "ctc"))
        if rescoring != "off" and decoders:
            modes.append(Mode(each, "rescoring"))
            if reencode and each == "streaming":
                modes.append(Mode(each, "second_pass"))
    return tuple(modes)


def measure_wer(
    recognizer: Recognizer,
    corpus: Sequence[Utterance],
    modes: Sequence[Mode] | None = None,
    options: WerOptions | None = None,
    *,
    jobs: int = 1,
    skip_bad: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Transcribe ``corpus`` in every mode; :func:`rates` or ``quant.measure.wer.compare.compare`` count the errors.

    Args:
        recognizer: a loaded bundle.
        corpus: recordings with their transcripts (``calibration.corpus.read_corpus``).
        modes: None: all that the bundle supports (:func:`choose_modes`).
        options: chunk, left context and beam.
        jobs: processes, see ``transcribe_all``.
        skip_bad: leave out recordings that cannot be used, and say why in the result.
        cache: keep transcripts in this file; those in it already are not made again.
        progress: called after each recording.

    Raises:
        AudioError: a recording that cannot be used; all headers are read before anything is transcribed.
        OptionsError: a mode or option that the bundle does not support.
        MeasureError: nothing to measure, or no recording left.
    """
    options = options or WerOptions()
    modes = tuple(modes) if modes is not None else choose_modes([recognizer.manifest])
    if not corpus or not modes:
        raise MeasureError(f"expected recordings and modes, found {len(corpus)} recordings and {len(modes)} modes")
    decode = {mode.key: options.decode(mode) for mode in modes}
    for each in decode.values():
        recognizer.prepare(each)
    inference = EngineConfig.of(recognizer.backend)
    bundle, skipped = bundle_id(recognizer.bundle), dict[str, str]()
    seconds = _lengths(corpus, skipped if skip_bad else None)
    usable = [u for u in corpus if u.name in seconds]
    store = Cache(cache) if cache is not None else None
    texts, keys = {u.name: dict[str, str]() for u in usable}, dict[tuple[str, str], str]()
    if store is not None:
        engine = (inference.title, versions())  # threads change no text
        for utterance in usable:
            audio: object = sha256(utterance.audio)
            if utterance.clip != Clip(utterance.audio):
                audio = [audio, utterance.start_s, utterance.seconds, utterance.channel]
            for mode, each in decode.items():
                key = keys[utterance.name, mode] = digest(bundle.sha256, engine, asdict(each), audio)
                if (text := store.get(key)) is not None:
                    texts[utterance.name][mode] = text
    todo = [(u, [m for m in decode if m not in texts[u.name]]) for u in usable]
    todo = [(u, missing) for u, missing in todo if missing]
    total = sum(seconds[u.name] for u, _ in todo)
    done, began = 0.0, time.perf_counter()
    tasks = [Task(u.clip, tuple(decode[m] for m in missing)) for u, missing in todo]
    with contextlib.closing(transcribe_all(recognizer, tasks, jobs)) as outcomes:
        for (utterance, missing), outcome in zip(todo, outcomes, strict=True):
            if isinstance(outcome, AudioError):
                skipped[utterance.name] = str(tolerated(outcome, skip_bad))
            else:
                texts[utterance.name] |= zip(missing, outcome, strict=True)
                if store is not None:
                    for mode in missing:
                        store.put(keys[utterance.name, mode], texts[utterance.name][mode])
            done += seconds[utterance.name]
            if progress is not None:
                progress(done, total)
    transcripts = tuple(Transcript(u.name, seconds[u.name], texts[u.name]) for u in usable if u.name not in skipped)
    if not transcripts:
        raise MeasureError(f"expected at least one recording that can be used, found {len(skipped)} that cannot")
    return Measurement(bundle, modes, options, transcripts, skipped, time.perf_counter() - began, inference)


def rates(corpus: Sequence[Utterance], measurement: Measurement, scoring: Scoring = WORDS) -> dict[str, Rate]:
    """Errors of one bundle by mode key: what a tuner needs."""
    references = {u.name: u.text for u in corpus}
    return {
        mode.key: rate(align([references[t.name] for t in measurement.transcripts], _texts(measurement, mode), scoring))
        for mode in measurement.modes
    }


def _lengths(corpus: Sequence[Utterance], skipped: dict[str, str] | None) -> dict[str, float]:
    """Seconds by name; ``skipped`` takes what cannot be opened, None raises."""
    seconds = {}
    for utterance in corpus:
        try:
            seconds[utterance.name] = audio_seconds(utterance.clip)
        except AudioError as error:
            if skipped is None:
                raise
            skipped[utterance.name] = str(error)
    return seconds


def _texts(measurement: Measurement, mode: Mode) -> list[str]:
    return [t.texts[mode.key] for t in measurement.transcripts]
