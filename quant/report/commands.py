"""The commands that reproduce every number of a report, as one would type them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.profile import DEFAULT_RULE
from edge.runtime.manifest import Manifest
from quant.measure.bench.measure import BenchResult
from quant.measure.wer.measure import WerReport
from quant.report.data import rule_of

if TYPE_CHECKING:
    from quant.report.measurements import ReportRequest


def commands(
    request: ReportRequest, baseline: Manifest, bundle: Manifest, wer: WerReport | None, bench: BenchResult | None
) -> dict[str, str]:
    """By step: convert, calibrate, quantize, tune, wer, bench, sensitivity, report."""
    checkpoint = str(request.checkpoint or bundle.source.checkpoint or "CKPT")
    profile = str(request.profile or "PROFILE")
    chosen = request.selection
    data: list[str] = []
    if chosen is not None:
        for manifest in chosen.manifests:
            data += ["--data", str(manifest)]
        data += ["--split", chosen.split or "all"]
        data += ["--limit", str(chosen.limit)] if chosen.limit else []
        data += ["--match", chosen.match] if chosen.match else []
    data = data or ["--data", "MANIFEST"]
    both = ["--bundle", str(request.bundle), "--baseline", str(request.baseline)]
    threads = ["--threads", str(request.threads)] if request.threads else []
    extra = ["--dither", f"{baseline.features.dither:g}"] if baseline.features.dither else []
    extra += ["--reencode"] if baseline.stream.reencode else []
    storage = ["--storage", baseline.encoder.storage]
    quantize = ["quantize", checkpoint, *_quantize(bundle, profile), "-o", str(request.bundle)]
    found = {
        "convert": _join("convert", checkpoint, "-o", str(request.baseline), *storage, *extra),
        "calibrate": _recorded(bundle.calibration.get("profile"))
        or _join("calibrate", checkpoint, "--data", "MANIFEST", "-o", profile),
        "quantize": _recorded(bundle.calibration)
        or _join(*quantize, *(["--tune", "MANIFEST"] if bundle.calibration.get("tuning") else [])),
        "tune": _join(*quantize, "--tune", str(chosen.manifests[0]) if chosen and chosen.manifests else "MANIFEST"),
        "wer": _join("wer", *both, *data, *threads, "--json", str(request.wer or request.out / "wer.json")),
        "bench": _join("bench", *both, *threads, *_bench(request, bench)),
        "report": _report(request, data, threads, checkpoint=None),
        "sensitivity": _report(request, data, threads, checkpoint=checkpoint),
    }
    if request.wer and wer:
        found["wer"] = wer.command
    if request.bench and bench:
        found["bench"] = bench.command
    return found


def _recorded(made: Any) -> str:
    """The command that a manifest says something was made with; empty when it does not."""
    command = made.get("command", "") if isinstance(made, dict) else ""
    return command if isinstance(command, str) else ""


def _quantize(bundle: Manifest, profile: str) -> list[str]:
    calibration = bundle.calibration
    scheme = calibration.get("scheme", bundle.encoder.scheme)
    words = ["--scheme", "static" if scheme == "fp32" else str(scheme), "--profile", profile]
    if calibration.get("observer") and not calibration.get("tuning"):
        words += ["--observer", str(calibration["observer"])]
    rule = rule_of(calibration)
    if rule != DEFAULT_RULE:
        words += ["--coverage-share", f"{100 * rule.share:g}", "--coverage-rows", f"{rule.rows_per_hidden:g}"]
    kept = [path for path, layer in calibration.get("fell_back", {}).items() if layer["why"] == "--keep"]
    words += [word for path in kept for word in ("--keep", str(path))]
    words += ["--dither", f"{bundle.features.dither:g}"] if bundle.features.dither else []
    return words + (["--reencode"] if bundle.stream.reencode else [])


def _report(request: ReportRequest, data: list[str], threads: list[str], checkpoint: str | None) -> str:
    """The report itself; ``checkpoint`` and a profile are named even where they were not given."""
    where = [str(request.checkpoint)] if request.checkpoint else []
    profile = ["--profile", str(request.profile)] if request.profile else []
    if checkpoint is not None:
        where, profile = [checkpoint], ["--profile", str(request.profile or "PROFILE")]
    given = [word for name in ("wer", "bench") if (path := getattr(request, name)) for word in (f"--{name}", str(path))]
    skip = [] if checkpoint is not None else [word for part in sorted(request.skip) for word in ("--skip", part)]
    both = ["--baseline", str(request.baseline), "--bundle", str(request.bundle)]
    how = ["--seconds", f"{request.seconds:g}", "--processes", str(request.processes), "--probes", str(request.probes)]
    return _join("report", *where, *both, *profile, *data, *given, *skip, *threads, *how, "-o", str(request.out))


def _bench(request: ReportRequest, bench: BenchResult | None) -> list[str]:
    words = ["--seconds", f"{request.seconds:g}"]
    words += ["--processes", str(request.processes)] if request.processes != 3 else []
    if bench is None or bench.synthetic:
        return words
    return words + [word for path in bench.audio for word in ("--audio", str(Path(path)))]


def _join(*words: str) -> str:
    return shlex.join(["u2edge", *words])
