"""The whole of quantizing: checkpoint and profile in, bundle out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calibration.corpus import CorpusError, Utterance, read_corpus
from calibration.profile import CoverageRule, Profile
from edge.export.convert import ConvertOptions
from edge.model.checkpoint import Experiment, load_experiment
from edge.runtime.bundle import Bundle
from edge.system.console import Say, silent
from quant.bundle import quantize_checkpoint
from quant.measure.wer.scoring import Punctuation, RateName
from quant.precision.plan import QuantizationError, QuantizationPlan
from quant.precision.scales import Replay, make_plan
from quant.precision.tuning import Tuning, TuningOptions, tune
from quant.provenance import Calibrated, provenance
from quant.schemes.registry import SCHEMES

SHIPPED = "calibration.profile"  # beside final.pt


@dataclass(frozen=True)
class QuantizeRequest:
    """What ``u2edge quantize`` was asked for."""

    checkpoint: Path
    out: Path
    profile: Path | None = None
    made_profile: Path | None = None  # looked for when none is named, before the shipped one
    scheme: str = "static"
    observer: str = "minmax"
    tune: tuple[Path, ...] = ()
    max_drop: float = 0.2  # points of WER (CER, MER)
    rate: RateName | Literal["auto"] = "auto"
    punctuation: Punctuation = "keep"
    min_agreement: float = 0.97
    split: str | None = "dev"
    limit: int = 0
    keep: tuple[str, ...] = ()
    coverage_share: float = 0.005
    coverage_rows: float = 2.0
    name: str = ""
    dither: float | None = None
    reencode: bool = False
    audio: Path | None = None  # speech for the comparison with torch; None: the checkpoint's samples
    threads: int | None = None
    force: bool = False
    command: str = ""  # recorded in the manifest


@dataclass(frozen=True)
class Quantized:
    """The bundle, and how it came to be."""

    bundle: Bundle
    plan: QuantizationPlan
    tuning: Tuning | None


def quantize(request: QuantizeRequest, report: Say = silent) -> Quantized:
    """Write the bundle that ``request`` asks for; the best one when tuning does not reach its budget.

    Raises:
        EdgeError: a checkpoint, profile, manifest or path that cannot be used.
    """
    if request.out.exists() and not request.force:
        raise QuantizationError(f"{request.out}: already exists; choose another folder, or replace it with --force")
    if request.tune and request.scheme != "static":
        raise QuantizationError(f"--tune: expected --scheme static, which has scales to search, found {request.scheme}")
    corpus = _corpus(request) if request.tune else []
    experiment = load_experiment(request.checkpoint)
    calibrated = _calibrated(request, experiment)
    profile = calibrated.profile if calibrated else None
    options = _options(request, experiment, profile, report)
    rule = CoverageRule(request.coverage_share, request.coverage_rows)
    tuning = None
    if corpus and profile is not None:
        report("replaying the profile to the observers")
        replay = Replay(experiment, profile, rule, request.keep)
        limits = TuningOptions(
            request.max_drop,
            request.min_agreement,
            _observers(request),
            threads=request.threads,
            rate=request.rate,
            punctuation=request.punctuation,
        )
        tuning = tune(experiment, replay, corpus, limits, options, report)
        plan = tuning.plan
    else:
        plan = make_plan(experiment, profile, request.scheme, request.observer, rule, request.keep)
    calibration = provenance(request, plan, calibrated, rule, tuning)
    bundle = quantize_checkpoint(experiment, plan, request.out, options, calibration, report)
    return Quantized(bundle, plan, tuning)


def _calibrated(request: QuantizeRequest, experiment: Experiment) -> Calibrated | None:
    """Calibrated schemes need a profile; for the others one is read only when it is named."""
    if request.profile is None and not (request.scheme in SCHEMES and SCHEMES[request.scheme].calibrated):
        return None
    path = _profile_path(request)
    profile = Profile.load(path)
    profile.check_checkpoint(experiment.sha256, str(experiment.path))
    return Calibrated(profile, path, hashlib.sha256(path.read_bytes()).hexdigest())


def _profile_path(request: QuantizeRequest) -> Path:
    """Where the profile is read from: named, made before, or shipped with the checkpoint."""
    if request.profile is not None:
        return request.profile
    folder = request.checkpoint if request.checkpoint.is_dir() else request.checkpoint.parent
    shipped, made = folder / SHIPPED, request.made_profile
    return shipped if made is None or (shipped.is_file() and not made.is_file()) else made


def _options(request: QuantizeRequest, experiment: Experiment, profile: Profile | None, report: Say) -> ConvertOptions:
    calibrated = profile.header.options.dither if profile else 0.0
    dither = calibrated if request.dither is None else request.dither
    if profile and dither < calibrated:
        report(
            f"warning: calibrated with a dither of {calibrated:g}, but the recognizer is to add {dither:g}: digital "
            "silence will exceed the scales; calibrate with the same --dither"
        )
    audio = request.audio or next(iter(sorted((experiment.path / "samples").glob("*.flac"))), None)
    name = request.name or f"{experiment.path.resolve().name}-{request.scheme}"
    return ConvertOptions(name=name, overwrite=request.force, dither=dither, reencode=request.reencode, audio=audio)


def _corpus(request: QuantizeRequest) -> list[Utterance]:
    corpus = read_corpus(request.tune, split=request.split, limit=request.limit, need_text=True)
    if not any(u.text.split() for u in corpus):
        raise CorpusError(f"{', '.join(map(str, request.tune))}: expected transcripts, found none")
    return corpus


def _observers(request: QuantizeRequest) -> tuple[str, ...]:
    """The one asked for first."""
    return (request.observer, *(o for o in ("minmax", "mse") if o != request.observer))
