"""What a report measures itself, each once: kept under the checksums of the bundles and the audio."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from calibration.corpus import Utterance, spread
from calibration.profile import Profile
from edge.runtime.bundle import Bundle, sha256
from edge.runtime.engines.config import EngineConfig
from edge.runtime.recognizer import Recognizer
from edge.system.console import Say
from edge.system.files import write_json
from edge.system.progress import Ticker
from quant.measure.agreement import Agreement, measure_agreement
from quant.measure.bench.machine import bundle_id, machine, versions
from quant.measure.bench.measure import BenchResult
from quant.measure.wer.compare import Selection
from quant.measure.wer.measure import WerReport
from quant.measure.wer.scoring import Punctuation, RateName, choose_scoring
from quant.precision.sensitivity_result import Sensitivity
from quant.report.decode import ReportError, decode
from quant.report.names import model_order
from quant.schemes.registry import SCHEMES

PARTS = ("wer", "bench", "agreement", "sensitivity")
SCHEMA_VERSION = 1
T = TypeVar("T")
_BENCH_RECORDINGS = 6


@dataclass(frozen=True)
class ReportRequest:
    """What ``u2edge report`` was asked for."""

    baseline: Path
    bundle: Path
    out: Path = Path("build/report")
    checkpoint: Path | None = None  # for sensitivity
    profile: Path | None = None  # for coverage, and the sensitivity of static int8
    selection: Selection | None = None  # of recordings
    rate: RateName | Literal["auto"] = "auto"
    punctuation: Punctuation = "keep"
    wer: Path | None = None  # what u2edge wer --json wrote
    bench: Path | None = None  # what u2edge bench --json wrote
    skip: frozenset[str] = field(default_factory=frozenset)  # of PARTS
    threads: int | None = None
    seconds: float = 20.0  # of the latency measurement
    processes: int = 3  # per bundle, for load time and memory; 0: neither
    probes: int = 8  # recordings for the sensitivity


class Store:
    """Measurements, each made once."""

    def __init__(
        self, request: ReportRequest, baseline: Bundle, bundle: Bundle, corpus: Sequence[Utterance], say: Say
    ) -> None:
        self._request, self._corpus, self._say = request, corpus, say
        self._ids = [bundle_id(baseline).sha256, bundle_id(bundle).sha256]
        self._manifest, self._folder = bundle.manifest, request.out / "measurements"
        self._audio: str | None = None

    def wer(self) -> WerReport | None:
        """All modes, or None when there is nothing to measure on."""
        request = self._request
        if not self._wanted("wer") or request.selection is None or not any(u.text for u in self._corpus):
            return None

        def make() -> WerReport:
            from quant.measure.wer.compare import report
            from quant.measure.wer.measure import choose_modes, measure_wer

            loaded = [
                Recognizer.load(path, EngineConfig(threads=request.threads))
                for path in (request.baseline, request.bundle)
            ]
            modes, measured = choose_modes([r.manifest for r in loaded]), []
            for recognizer, name in zip(loaded, ("baseline", "bundle")):
                with Ticker(f"word error rate, {name}") as ticker:
                    cache = self._folder / "transcripts"
                    measured.append(measure_wer(recognizer, self._corpus, modes, cache=cache, progress=ticker.show))
            assert request.selection is not None
            return report(self._corpus, request.selection, measured[1], measured[0], scoring)

        scoring = choose_scoring((u.text for u in self._corpus), request.rate, request.punctuation)
        key = [self._digest(), [str(p) for p in request.selection.manifests], scoring.description]
        return self._once("wer", WerReport, key, make)

    def bench(self) -> BenchResult | None:
        """Both bundles interleaved."""
        if not self._wanted("bench"):
            return None
        request, system = self._request, machine()

        def make() -> BenchResult:
            from quant.measure.bench.measure import BenchOptions, bench

            options = BenchOptions(
                seconds=request.seconds, processes=request.processes, engine=EngineConfig(threads=request.threads)
            )
            return bench(request.bundle, request.baseline, options, bench_audio(self._corpus), self._say)

        heard = [sha256(path) for path in bench_audio(self._corpus)]
        asked = [request.threads, request.seconds, request.processes]
        return self._once("bench", BenchResult, [heard, asked, system["cpu"], system["cores"]], make)

    def agreement(self) -> Agreement | None:
        """Routing, fp32 and int8."""
        if not self._wanted("agreement") or not self._corpus:
            return None
        request = self._request

        def make() -> Agreement:
            with Ticker("routing agreement") as ticker:
                return measure_agreement(
                    request.baseline, request.bundle, self._corpus, threads=request.threads, progress=ticker.show
                )

        return self._once("agreement", Agreement, [self._digest()], make)

    def sensitivity(self, profile: Profile | None) -> Sensitivity | None:
        """With the checkpoint, and for static int8 the profile."""
        request = self._request
        if not self._wanted("sensitivity") or not self._corpus or request.checkpoint is None:
            return None
        known = SCHEMES.get(self._manifest.encoder.scheme)  # None: mixed
        needs = known is None or known.calibrated
        if needs and profile is None:
            return None
        probes = spread(list(self._corpus), request.probes)
        parts = [audio_digest(probes), None if request.profile is None else sha256(request.profile)]

        def make() -> Sensitivity:
            from edge.model.checkpoint import load_experiment
            from quant.precision.sensitivity import measure_sensitivity
            from quant.report.precisions import plan_of

            assert request.checkpoint is not None
            experiment = load_experiment(request.checkpoint)
            if experiment.sha256 != self._manifest.source.sha256:
                raise ReportError(
                    f"{request.checkpoint}: expected the checkpoint of the bundle "
                    f"({self._manifest.source.sha256[:12]}), found another ({experiment.sha256[:12]})"
                )
            plan = plan_of(Bundle.open(request.bundle, verify=False), experiment, profile)
            with Ticker("sensitivity") as ticker:
                dither = self._manifest.features.dither
                found = measure_sensitivity(experiment, plan, probes, dither=dither, progress=ticker.show)
            return replace(
                found,
                parts=tuple(sorted(found.parts, key=lambda part: model_order(part.path))),
                experts=tuple(sorted(found.experts, key=lambda expert: model_order(expert.layer))),
            )

        return self._once("sensitivity", Sensitivity, parts, make)

    def _wanted(self, part: str) -> bool:
        return part not in self._request.skip

    def _digest(self) -> str:
        if self._audio is None:
            self._audio = audio_digest(self._corpus)
        return self._audio

    def _once(self, name: str, kind: type[T], key: list[Any], make: Callable[[], T]) -> T:
        text = json.dumps([SCHEMA_VERSION, name, self._ids, key, versions()], sort_keys=True)
        path = self._folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            # A damaged file is measured again.
            with contextlib.suppress(ValueError):
                found = decode(kind, json.loads(path.read_text(encoding="utf-8")), str(path))
                self._say(f"{name}: as measured before ({path})")
                return found
        self._say(f"{name}: measuring")
        found = make()
        write_json(path, asdict(found), indent=None)  # type: ignore[call-overload]
        return found


def bench_audio(corpus: Sequence[Utterance]) -> list[Path]:
    """A few recordings, evenly spread; none: the bench takes the samples or noise."""
    return [u.audio for u in spread(list(corpus), _BENCH_RECORDINGS)]


def audio_digest(corpus: Sequence[Utterance]) -> str:
    """Of names, transcripts and the bytes of the recordings."""
    total = hashlib.sha256()
    for u in corpus:
        total.update(json.dumps([u.name, u.text, u.speaker, sha256(u.audio)]).encode())
    return total.hexdigest()
