"""What a quantized bundle says of itself: where its scales came from, what fell back, what it weighs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.profile import CoverageRule, Profile, recorded_command
from edge.runtime.bundle import Bundle
from quant.kernels import count_kernels
from quant.precision.plan import LayerPlan, QuantizationPlan
from quant.precision.tuning import Tuning

if TYPE_CHECKING:
    from quant.quantize import QuantizeRequest


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A profile, and the file that it was read from."""

    profile: Profile
    path: Path
    sha256: str


def provenance(
    request: QuantizeRequest,
    plan: QuantizationPlan,
    calibrated: Calibrated | None,
    rule: CoverageRule,
    tuning: Tuning | None,
) -> dict[str, Any]:
    """Where the scales came from, for the manifest."""
    data: dict[str, Any] = {
        "scheme": request.scheme,
        "command": request.command,
        "fell_back": {path: {"precision": layer.precision, "why": layer.why} for path, layer in fell_back(plan)},
    }
    if calibrated is not None:
        profile = calibrated.profile
        coverage = profile.coverage(rule)
        data["observer"] = tuning.trials[tuning.chosen].observer if tuning else request.observer
        data["profile"] = {
            "sha256": calibrated.sha256,
            "utterances": len(profile.header.utterances),
            "skipped": len(profile.header.skipped),
            "seconds": round(profile.seconds, 1),
            "options": dataclasses.asdict(profile.header.options),
            "command": recorded_command(calibrated.path),
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


def fell_back(plan: QuantizationPlan) -> list[tuple[str, LayerPlan]]:
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
