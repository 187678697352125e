"""``u2edge quantize``."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from calibration.corpus import CorpusError, Utterance, read_corpus
from calibration.profile import CoverageRule, Profile, recorded_command
from edge.commandline import command_line
from edge.export.convert import ConvertOptions
from edge.model.checkpoint import Experiment, load_experiment
from edge.runtime.bundle import Bundle
from quant.bundle import quantize_checkpoint
from quant.kernels import count_kernels
from quant.observe import Replay, observe
from quant.plan import QuantizationError, QuantizationPlan
from quant.tuning import Tuning, TuningOptions, tune

SHIPPED = "calibration.profile"  # beside final.pt


@dataclass(frozen=True)
class Request:
    """The command line of ``u2edge quantize``; None and empty values stand for defaults that depend on others."""

    checkpoint: Path
    profile: Path | None = None
    out: Path | None = None
    scheme: str = "static"
    observer: str = "minmax"
    tune: tuple[Path, ...] = ()
    max_drop: float = 0.2  # points of WER
    min_agreement: float = 0.97
    split: str | None = "dev"
    limit: int = 0
    keep: tuple[str, ...] = ()
    coverage_share: float = 0.005
    coverage_rows: float = 2.0
    name: str = ""
    dither: float | None = None
    reencode: bool = False
    audio: Path | None = None
    threads: int | None = None
    force: bool = False


def run(request: Request) -> int:
    """Exit code: 0, or 1 when tuning did not reach its budget (the best bundle is written all the same).

    Raises:
        EdgeError: a checkpoint, profile, manifest or path that cannot be used.
    """
    plain = {"highlight": False, "markup": False, "emoji": False}
    notes = Console(stderr=True, **plain)  # type: ignore[arg-type]

    def report(line: str) -> None:
        notes.print(line, soft_wrap=True)

    began = time.perf_counter()
    out = request.out or _beside(request.checkpoint, "-int8" if request.scheme == "static" else f"-{request.scheme}")
    if out.exists() and not request.force:
        raise QuantizationError(f"{out}: already exists; choose another folder, or replace it with --force")
    if request.tune and request.scheme != "static":
        raise QuantizationError(f"--tune: expected --scheme static, which has scales to search, found {request.scheme}")
    corpus = _corpus(request) if request.tune else []
    experiment = load_experiment(request.checkpoint)
    profile, sha256 = _profile(request, experiment)
    options = _options(request, experiment, profile, report)
    rule = CoverageRule(request.coverage_share, request.coverage_rows)
    tuning = None
    if corpus and profile is not None:
        report("replaying the profile to the observers")
        replay = Replay(experiment, profile, rule, request.keep)
        limits = TuningOptions(request.max_drop, request.min_agreement, _observers(request), threads=request.threads)
        tuning = tune(experiment, replay, corpus, limits, options, report)
        plan = tuning.plan
    else:
        plan = observe(experiment, profile, request.scheme, request.observer, rule, request.keep)
    calibration = provenance(request, plan, profile, sha256, rule, tuning)
    bundle = quantize_checkpoint(request.checkpoint, plan, out, options, calibration, report)
    for line in summary(plan, bundle):
        report(line)
    report(f"wrote {out} in {time.perf_counter() - began:.0f} s")
    report(f"next: u2edge transcribe AUDIO --bundle {shlex.quote(str(out))}")
    if tuning is not None and not tuning.accepted:
        report(
            f"tuning: expected at most {request.max_drop:g} points of WER and {100 * request.min_agreement:g} % of "
            f"frames with the same experts; the best of {len(tuning.trials)} trials was written"
        )
        return 1
    return 0


def provenance(
    request: Request,
    plan: QuantizationPlan,
    profile: Profile | None,
    sha256: str,
    rule: CoverageRule,
    tuning: Tuning | None,
) -> dict[str, Any]:
    """Where the scales came from, for the manifest."""
    data: dict[str, Any] = {
        "scheme": request.scheme,
        "command": command_line(),
        "fell_back": {path: {"precision": layer.precision, "why": layer.why} for path, layer in fell_back(plan)},
    }
    if profile is not None:
        coverage = profile.coverage(rule)
        data["observer"] = tuning.trials[tuning.chosen].observer if tuning else request.observer
        data["profile"] = {
            "sha256": sha256,
            "utterances": len(profile.header.utterances),
            "skipped": len(profile.header.skipped),
            "seconds": round(profile.seconds, 1),
            "options": dataclasses.asdict(profile.header.options),
            "command": recorded_command(profile_path(request)),
        }
        data["coverage"] = {
            "rule": dataclasses.asdict(rule),
            "experts": len(coverage),
            "covered": sum(c.covered for c in coverage),
            "uncovered": {f"{c.layer}.experts.{c.expert}": c.frames for c in coverage if not c.covered},
        }
        data["borrowed"] = sorted(path for path, layer in plan.layers.items() if layer.borrowed)
    if tuning is not None:
        data["tuning"] = tuning.to_dict()
    return data


def fell_back(plan: QuantizationPlan) -> list[tuple[str, Any]]:
    """Layers with a reason for not being what the scheme says."""
    return [(path, layer) for path, layer in plan.layers.items() if layer.why]


def summary(plan: QuantizationPlan, bundle: Bundle) -> list[str]:
    """For people: what fell back, who borrowed, layers by precision, kernels, size."""
    lines = [f"{path}: {layer.precision} ({layer.why})" for path, layer in fell_back(plan)]
    experts = list(dict.fromkeys(p.rpartition(".")[0] for p, layer in plan.layers.items() if layer.borrowed))
    if experts:
        listed = ", ".join(_short(path) for path in experts[:6]) + (", ..." if len(experts) > 6 else "")
        lines.append(f"{len(experts)} experts were seen too rarely and borrow statistics: {listed}")
    lines.append("layers: " + ", ".join(f"{count} {kind}" for kind, count in sorted(plan.counts().items())))
    for graph, kernels in count_kernels(bundle).items():
        lines.append(f"{graph} kernels: " + ", ".join(f"{count} {kind}" for kind, count in kernels.items()))
    size = sum(path.stat().st_size for path in bundle.directory.iterdir())
    lines.append(f"size: {size / 1e6:.2f} MB, {size / (4 * bundle.manifest.source.parameters):.2f} of fp32 weights")
    return lines


def _short(path: str) -> str:
    """encoder.encoders.3.feed_forward.experts.5 -> encoder 3 feed_forward 5."""
    return path.replace("encoder.encoders.", "encoder ").replace(".experts.", " ").replace(".", " ")


def profile_path(request: Request) -> Path:
    """Where the profile is read from: named, in build/, or shipped with the checkpoint."""
    if request.profile is not None:
        return request.profile
    made = _beside(request.checkpoint, ".profile")
    folder = request.checkpoint if request.checkpoint.is_dir() else request.checkpoint.parent
    shipped = folder / SHIPPED
    return shipped if shipped.is_file() and not made.is_file() else made


def _profile(request: Request, experiment: Experiment) -> tuple[Profile | None, str]:
    """The profile and its checksum; static and static16 need one, for the others one is read only when it is named."""
    if request.scheme not in ("static", "static16") and request.profile is None:
        return None, ""
    path = profile_path(request)
    profile = Profile.load(path)
    profile.check_checkpoint(experiment.sha256, str(experiment.path))
    return profile, hashlib.sha256(path.read_bytes()).hexdigest()


def _options(request: Request, experiment: Experiment, profile: Profile | None, report: Any) -> ConvertOptions:
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


def _corpus(request: Request) -> list[Utterance]:
    corpus = read_corpus(request.tune, split=request.split, limit=request.limit, need_text=True)
    if not any(u.text.split() for u in corpus):
        raise CorpusError(f"{', '.join(map(str, request.tune))}: expected transcripts, found none")
    return corpus


def _observers(request: Request) -> tuple[str, ...]:
    """The one asked for first."""
    return (request.observer, *(o for o in ("minmax", "kl") if o != request.observer))


def _beside(checkpoint: Path, ending: str) -> Path:
    """build/<checkpoint><ending>, as u2edge calibrate names its profile."""
    folder = checkpoint.resolve()
    return Path("build") / f"{folder.parent.name if folder.is_file() else folder.name}{ending}"
