"""The accuracy-driven search: which observer, and which layers and experts must stay in float.

neural-compressor's ``autotune`` walks through its configurations and stops at the first that is good enough. It
judges by what users get: every trial is exported to a real bundle, and the bundle transcribes recordings on ONNX
Runtime. First the observers alone; when none will do, more and more of the parts that the simulation finds most
harmful fall back to fp32, experts one by one. What fell back is then stored in 8 bits with float arithmetic
(weight8, which neural-compressor cannot express) if that is good enough too.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from calibration.corpus import Utterance, spread
from edge.export.convert import ConvertOptions, convert
from edge.model.checkpoint import Experiment
from edge.runtime.bundle import Bundle
from edge.runtime.engines.config import EngineConfig
from edge.runtime.recognizer import Recognizer
from quant.bundle import quantize_checkpoint
from quant.measure.agreement import measure_agreement
from quant.measure.wer.measure import choose_modes, measure_wer, rates
from quant.measure.wer.scoring import Punctuation, RateName, Scoring, choose_scoring
from quant.precision.observer_model import quiet
from quant.precision.plan import QuantizationPlan, covers
from quant.precision.scales import Replay
from quant.precision.sensitivity import measure_sensitivity
from quant.precision.sensitivity_result import ExpertError, PartError, Sensitivity

Report = Callable[[str], None]


@dataclass(frozen=True)
class TuningOptions:
    """When a bundle is good enough, and what a trial costs."""

    max_drop: float = 0.2  # points of WER (CER, MER), absolute, in the worst mode of context and rescoring
    agreement: float = 0.97  # share of frames whose experts are unchanged, mean over layers
    observers: tuple[str, ...] = ("minmax", "mse")
    agreement_utterances: int = 12
    sensitivity_utterances: int = 4
    threads: int | None = None  # of ONNX Runtime
    rate: RateName | Literal["auto"] = "auto"  # what the loss is counted in; auto: as the transcripts are written
    punctuation: Punctuation = "keep"


@dataclass(frozen=True)
class Trial:
    """One configuration that was exported and measured. ``wer`` is percent by mode; ``drop`` points against fp32 in
    the worst mode; ``fell_back`` module paths that left the scheme."""

    observer: str
    fell_back: tuple[str, ...]
    precision: str  # of what fell back
    wer: dict[str, float]
    drop: float
    agreement: float
    bytes: int
    seconds: float
    accepted: bool


@dataclass(frozen=True)
class Tuning:
    """What the search found. ``plan`` is the first accepted trial's, else that of the best trial."""

    plan: QuantizationPlan
    accepted: bool
    chosen: int  # index of the plan's trial
    baseline: dict[str, float]  # WER (CER, MER) of fp32 in percent, by mode
    trials: tuple[Trial, ...]
    options: TuningOptions
    utterances: int
    scored: RateName = "wer"  # what the loss was counted in
    sensitivity: Sensitivity | None = None  # None: nothing had to fall back

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for a manifest, without plan and sensitivity."""
        data = dataclasses.asdict(dataclasses.replace(self, plan=QuantizationPlan(""), sensitivity=None))
        return {key: value for key, value in data.items() if key not in ("plan", "sensitivity")}


@dataclass
class _Judge:
    """Exports a plan and lets it transcribe."""

    experiment: Experiment
    corpus: Sequence[Utterance]
    options: TuningOptions
    convert: ConvertOptions
    work: Path
    report: Report
    scoring: Scoring
    baseline: dict[str, float] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    plans: list[QuantizationPlan] = field(default_factory=list)
    threads: int | None = None  # what was asked for, else what pays for the first bundle: not measured for every trial

    def measure_baseline(self) -> None:
        bundle = convert(self.experiment, self.work / "fp32", self.convert)
        self.baseline = self._wer(bundle)
        found = ", ".join(f"{mode} {wer:.2f} %" for mode, wer in self.baseline.items())
        self.report(f"fp32: {self.scoring.title} {found} on {len(self.corpus)} recordings")
        words = sum(len(self.scoring.tokens(utterance.text)) for utterance in self.corpus)
        one = 100 / max(1, words)
        if one > self.options.max_drop >= 0:
            self.report(
                f"note: one of {words} {self.scoring.unit} is {one:.2f} points, more than the "
                f"{self.options.max_drop:g} allowed; more recordings would tell chance from loss"
            )

    def judge(self, plan: QuantizationPlan, observer: str, fell_back: Sequence[str], precision: str) -> float:
        """1 minus the loss in words: 1.0 for a WER as fp32's; just below what is tolerated where routing changed too
        much. Relative to the baseline of 1.0, autotune's tolerable loss is then absolute."""
        began = time.perf_counter()
        bundle = quantize_checkpoint(self.experiment, plan, self.work / f"trial{len(self.trials)}", self.convert)
        wer = self._wer(bundle)
        drop = max(wer[mode] - self.baseline[mode] for mode in wer)
        agreement = measure_agreement(
            self.work / "fp32",
            bundle.directory,
            self.corpus,
            limit=self.options.agreement_utterances,
            threads=self.options.threads,
        ).worst
        accepted = drop <= self.options.max_drop + 1e-9 and agreement >= self.options.agreement
        size = sum(path.stat().st_size for path in bundle.directory.iterdir())
        seconds = time.perf_counter() - began
        trial = Trial(observer, tuple(fell_back), precision, wer, drop, agreement, size, seconds, accepted)
        self.trials.append(trial)
        self.plans.append(plan)
        count = f"{len(fell_back)} parts in {precision}" if fell_back else "nothing fell back"
        self.report(
            f"trial {len(self.trials)}: {observer}, {count}: {self.scoring.title} {drop:+.2f} points, "
            f"routing {100 * agreement:.1f} %, {size / 1e6:.1f} MB, {seconds:.0f} s: "
            f"{'good enough' if accepted else 'not good enough'}"
        )
        score = 1.0 - drop / 100
        if agreement < self.options.agreement:
            score = min(score, 1.0 - self.options.max_drop / 100) - (self.options.agreement - agreement) - 1e-6
        return score

    def _wer(self, bundle: Bundle) -> dict[str, float]:
        recognizer = Recognizer.load(
            bundle.directory, EngineConfig(threads=self.options.threads or self.threads), verify=False
        )
        self.threads = recognizer.backend.threads
        modes = choose_modes([recognizer.manifest])  # those a report measures: one pass serves them all
        measured = rates(self.corpus, measure_wer(recognizer, self.corpus, modes), self.scoring)
        return {mode: rate.wer if rate.wer is not None else 0.0 for mode, rate in measured.items()}


def tune(
    experiment: Experiment,
    replay: Replay,
    corpus: Sequence[Utterance],
    options: TuningOptions | None = None,
    convert_options: ConvertOptions | None = None,
    report: Report = lambda line: None,
) -> Tuning:
    """Search for a static plan that keeps accuracy.

    Args:
        experiment: the checkpoint.
        replay: its calibration profile, with what stays fp32 in any case.
        corpus: recordings with transcripts, not those of calibration.
        options: the budget.
        convert_options: dither of the recognizer and the like, as for the final bundle.
        report: called with one line per trial.

    Raises:
        EdgeError: recordings that cannot be used, or layers that cannot be quantized.
    """
    options = options or TuningOptions()
    convert_options = dataclasses.replace(convert_options or ConvertOptions(), overwrite=False, name="")
    with tempfile.TemporaryDirectory(prefix="u2edge-tune-") as folder:
        scoring = choose_scoring((u.text for u in corpus), options.rate, options.punctuation)
        report(f"scored in {scoring.title}: {scoring.description}")
        judge = _Judge(experiment, corpus, options, convert_options, Path(folder), report, scoring)
        judge.measure_baseline()
        sensitivity = None
        if not _search(judge, replay, [(observer, ()) for observer in options.observers]):
            best = _best(judge)
            report("measuring which parts cost most")
            chosen = spread(list(corpus), options.sensitivity_utterances)
            plan = judge.plans[best]
            sensitivity = measure_sensitivity(experiment, plan, chosen, dither=convert_options.dither)
            observer, drop = judge.trials[best].observer, judge.trials[best].drop
            order = ranking(sensitivity, plan, by_routing=drop <= options.max_drop)
            if _search(judge, replay, [(observer, tuple(order[:count])) for count in steps(len(order))]):
                _shrink(judge)
        best = _best(judge)
        trials = tuple(judge.trials)
        return Tuning(
            judge.plans[best],
            trials[best].accepted,
            best,
            judge.baseline,
            trials,
            options,
            len(corpus),
            scoring.rate,
            sensitivity,
        )


def ranking(sensitivity: Sensitivity, plan: QuantizationPlan, by_routing: bool = False) -> list[str]:
    """Module paths that may fall back, the most harmful first: experts one by one, and what is not an expert.

    Harm is the error of the outputs; ``by_routing``: the share of frames that change experts, where only that is too
    large.
    """

    def harm(error: PartError | ExpertError) -> tuple[float, float]:
        moved = 0.0 if error.routing is None else 1.0 - error.routing
        return (moved, error.kl) if by_routing else (error.kl, moved)

    costs = {f"{e.layer}.experts.{e.expert}": harm(e) for e in sensitivity.experts}
    split = {path.partition(".experts.")[0] for path in costs}
    costs |= {part.path: harm(part) for part in sensitivity.parts if part.path not in split}
    quantized = [path for path, layer in plan.layers.items() if layer.precision != "fp32"]
    usable = [path for path in costs if any(covers({path}, layer) for layer in quantized)]
    return sorted(usable, key=lambda path: costs[path], reverse=True)


def steps(count: int) -> list[int]:
    """1, 2, 4, ... and ``count``: how many parts fall back, trial by trial."""
    return [1 << i for i in range(count.bit_length()) if 1 << i < count] + ([count] if count else [])


def _search(judge: _Judge, replay: Replay, candidates: Sequence[tuple[str, tuple[str, ...]]]) -> bool:
    """Let neural-compressor try ``candidates`` (observer, paths that stay fp32) in order; True when one is accepted."""
    with quiet():
        from neural_compressor.torch.quantization import TuningConfig, autotune

        configs = [replay.observer_model.config(observer, {*replay.kept, *paths}) for observer, paths in candidates]
        first = len(judge.trials)
        found: list[QuantizationPlan] = []  # of the trial that is being made

        def run(prepared: Any) -> None:
            replay.observer_model.feed(prepared)
            found[:] = [replay.plan(prepared, "tuning")]

        def evaluate(model: Any) -> float:
            if not found:  # the exported fp32 observer_model, before any trial
                return 1.0
            observer, paths = candidates[len(judge.trials) - first]
            return judge.judge(found[0], observer, paths, "fp32")

        config = TuningConfig(config_set=configs, tolerable_loss=judge.options.max_drop / 100 + 1e-9)
        autotune(replay.observer_model.graph, config, eval_fn=evaluate, run_fn=run)
    return judge.trials[-1].accepted


def _shrink(judge: _Judge) -> None:
    """Try what fell back as weight8: float arithmetic, but a quarter of the bytes."""
    last, plan = judge.trials[-1], judge.plans[-1]
    fell_back = {path for path, layer in plan.layers.items() if layer.why == "tuning"}
    judge.judge(plan.fall_back(fell_back, "weight8", "tuning"), last.observer, last.fell_back, "weight8")


def _best(judge: _Judge) -> int:
    """The last accepted trial, else the one that loses least (agreement breaks ties)."""
    accepted = [i for i, trial in enumerate(judge.trials) if trial.accepted]
    if accepted:
        return accepted[-1]
    floor = judge.options.agreement
    order = [(trial.agreement < floor, trial.drop, -trial.agreement) for trial in judge.trials]
    return order.index(min(order))
