"""What a report says: everything in ``report.json``, decoded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from quant.measure.agreement import Agreement
from quant.measure.bench.machine import BundleId
from quant.measure.bench.measure import BenchResult
from quant.measure.wer.measure import CorpusInfo, WerReport
from quant.precision.sensitivity_result import Sensitivity
from quant.report.data import CoverageTable, Sizes, Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FellBack:
    """A layer that is not what the scheme says."""

    precision: str
    why: str


@dataclass(frozen=True)
class TrialInfo:
    """One trial of the tuner, as ``quant.precision.tuning.Trial``."""

    observer: str
    fell_back: tuple[str, ...]
    precision: str
    drop: float
    agreement: float
    bytes: int
    seconds: float
    accepted: bool


@dataclass(frozen=True)
class TuningLimits:
    """What the tuner was asked for."""

    max_drop: float
    agreement: float


@dataclass(frozen=True)
class TuningInfo:
    """The search that chose the precisions."""

    trials: tuple[TrialInfo, ...]
    chosen: int
    options: TuningLimits
    utterances: int
    accepted: bool


@dataclass(frozen=True)
class CoverageInfo:
    """Experts below the rule -> frames that they saw."""

    uncovered: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CalibrationInfo:
    """The ``calibration`` of a manifest; None is what it does not say."""

    layers: dict[str, int] | None = None
    fell_back: dict[str, FellBack] | None = None
    borrowed: tuple[str, ...] | None = None
    coverage: CoverageInfo | None = None
    tuning: TuningInfo | None = None


@dataclass(frozen=True)
class Report:
    """One bundle against its baseline."""

    created: str
    names: tuple[str, str]  # of baseline and bundle
    model: str
    bundle: BundleId
    baseline: BundleId
    size: Sizes
    corpus: CorpusInfo | None
    wer: WerReport | None
    bench: BenchResult | None
    agreement: Agreement | None
    sensitivity: Sensitivity | None
    coverage: CoverageTable | None
    calibration: CalibrationInfo
    calibration_json: dict[str, Any]  # as the manifest has it
    commands: dict[str, str]
    machine: dict[str, Any]
    versions: dict[str, str]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The content of report.json; texts of single recordings are left out."""
        wer = None if self.wer is None else asdict(self.wer)
        if wer is not None:
            del wer["utterances"]
        return {
            "schema_version": SCHEMA_VERSION,
            "created": self.created,
            "summary": {
                "verdict": self.verdict.word,
                "why": self.verdict.why,
                "level": self.verdict.level,
                "bars": {bar.key: asdict(bar) for bar in self.verdict.bars},
            },
            "names": list(self.names),
            "model": self.model,
            "bundle": asdict(self.bundle),
            "baseline": asdict(self.baseline),
            "size": asdict(self.size),
            "corpus": None if self.corpus is None else asdict(self.corpus),
            "wer": wer,
            "bench": None if self.bench is None else asdict(self.bench),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "sensitivity": None if self.sensitivity is None else asdict(self.sensitivity),
            "coverage": None if self.coverage is None else asdict(self.coverage),
            "calibration": self.calibration_json,
            "commands": self.commands,
            "machine": self.machine,
            "versions": self.versions,
        }
