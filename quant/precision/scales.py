"""From a calibration profile to the scales of every layer, by neural-compressor's observers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.histogram import ActivationStats
from calibration.profile import DEFAULT_RULE, CoverageRule, Profile, ProfileError
from edge.model.checkpoint import Experiment
from edge.model.u2pp import U2pp
from quant.precision.observer_model import ObserverModel, quantizable
from quant.precision.plan import ActivationScale, LayerPlan, QuantizationError, QuantizationPlan, covers
from quant.schemes import registry

DEFAULT_OBSERVER = "minmax"

_SMALLEST_SPAN = 1e-4  # observers know no scale below 1.2e-7, and the profile no values below 1.5e-5
_BIAS_LIMIT = float(1 << 30)  # of an int32 bias: the accumulated products get the other half


def make_plan(
    experiment: Experiment,
    profile: Profile | None,
    scheme: str = "static",
    observer: str = DEFAULT_OBSERVER,
    rule: CoverageRule = DEFAULT_RULE,
    keep: Collection[str] = (),
) -> QuantizationPlan:
    """The plan of a scheme for every layer of a checkpoint.

    Args:
        experiment: the checkpoint.
        profile: of this checkpoint; only static and static16 need one.
        scheme: one of ``quant.schemes.registry``.
        observer: minmax or mse, for static.
        rule: below it an expert's own statistics are not trusted.
        keep: module paths that stay fp32, with everything below them.

    Raises:
        QuantizationError: an unknown scheme or path, a missing profile, a layer whose scale cannot be found.
        ProfileError: a profile of another checkpoint, or without a layer of it.
    """
    if scheme not in registry.SCHEMES:
        raise QuantizationError(f"--scheme: expected one of {', '.join(registry.SCHEMES)}, found {scheme!r}")
    if registry.SCHEMES[scheme].calibrated:
        if profile is None:
            raise QuantizationError(
                "static quantization: expected a calibration profile, found none; make one: "
                "u2edge calibrate CKPT --data MANIFEST -o PROFILE, or use --scheme dynamic"
            )
        replay = Replay(experiment, profile, rule, keep)
        prepared = replay.observer_model.prepare(observer, replay.kept)
        replay.observer_model.feed(prepared)
        return with_scheme(replay.plan(prepared), scheme)
    with torch.device("meta"):
        modules = quantizable(U2pp(experiment.config))
    kept, how = _kept(modules, keep), registry.scheme(scheme)
    layers = {
        path: LayerPlan("fp32", why=kept[path]) if path in kept else how.plan(path, isinstance(module, nn.Conv2d))
        for path, module in modules.items()
    }
    return QuantizationPlan(scheme, layers)


class Replay:
    """A profile, laid out so that observers can see it as often as needed.

    Args:
        experiment, profile, rule, keep: as for ``make_plan``.
    """

    def __init__(
        self,
        experiment: Experiment,
        profile: Profile,
        rule: CoverageRule = DEFAULT_RULE,
        keep: Collection[str] = (),
    ) -> None:
        profile.check_checkpoint(experiment.sha256, str(experiment.path))
        self._modules = quantizable(experiment.build())
        self._uncovered = profile.uncovered(rule)
        self.kept = _kept(self._modules, keep)
        """Layers that stay fp32, and why."""
        self._inputs: dict[str, ActivationStats] = {}
        self._borrowed: set[str] = set()
        for path in self._modules:
            self._inputs[path], borrowed = _statistics(profile, path, self._uncovered)
            if borrowed:
                self._borrowed.add(path)
            if path not in self.kept and _span(self._inputs[path]) < _SMALLEST_SPAN:
                self.kept[path] = "calibration saw only zeros"
        outputs = {}
        for path, module in self._modules.items():
            if isinstance(module, nn.Conv2d) and path not in self.kept:
                outputs[path] = _output(profile, path)
        self.observer_model = ObserverModel(self._modules, self._inputs, outputs)

    @property
    def paths(self) -> list[str]:
        """Of all layers that are not kept."""
        return [path for path in self._modules if path not in self.kept]

    def plan(self, prepared: Any, why: str = "") -> QuantizationPlan:
        """The scales that the observers of ``prepared`` found; ``why`` a layer without observers stays fp32, where
        ``kept`` does not say it.

        Raises:
            QuantizationError: a scale that cannot be right; names the layer.
        """
        observers = self.observer_model.observers(prepared)
        layers = {}
        for path, module in self._modules.items():
            borrowed = path in self._borrowed
            if path not in observers:
                layers[path] = LayerPlan("fp32", borrowed=borrowed, why=self.kept.get(path, why))
                continue
            activation, weight = observers[path]
            scale = activation_scale(path, activation, self._inputs[path])
            output = None
            if isinstance(module, nn.Conv2d):
                output = activation_scale(f"{path} (output)", observers[f"{path}.output"][0], None)
            bias = getattr(module, "bias", None)
            weights = weight_scales(path, weight, scale, None if bias is None else bias.detach().numpy())
            layers[path] = LayerPlan("static", scale, output, weights, borrowed)
        return QuantizationPlan("static", _chained(self._modules, layers))


def with_scheme(static: QuantizationPlan, name: str) -> QuantizationPlan:
    """The plan of another calibrated scheme, from the scales of a static one."""
    how = registry.scheme(name)
    layers = {
        path: how.recalibrated(layer) if layer.precision == "static" else layer for path, layer in static.layers.items()
    }
    return QuantizationPlan(name, layers)


def activation_scale(name: str, observer: Any, statistics: ActivationStats | None) -> ActivationScale:
    """What an activation observer found; ``statistics`` is what it was shown.

    An observer that saw nothing answers scale 1.0 and zero point 0, which quantizes everything below 0.5 to zero.

    Raises:
        QuantizationError: no data, not finite, not positive, or far from what was shown.
    """
    if not bool(torch.isfinite(observer.min_val).all() and torch.isfinite(observer.max_val).all()):
        raise QuantizationError(f"{name}: its observer saw no data; calibrate again with more audio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scale, zero_point = (part.item() for part in observer.calculate_qparams())
    try:
        result = ActivationScale(float(scale), int(zero_point))
    except QuantizationError as error:
        raise QuantizationError(f"{name}: {error}; calibrate again") from None
    if statistics is not None:
        span = _span(statistics)
        if not 0.0 < result.scale * 255 <= 1.01 * span:
            raise QuantizationError(
                f"{name}: expected a scale of at most {span / 255:.3g} for values {statistics.low:.3g} to "
                f"{statistics.high:.3g}, found {result.scale:.3g} with zero point {result.zero_point}"
            )
    return result


def weight_scales(
    path: str, observer: Any, activation: ActivationScale, bias: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(out_features,) float32 from a weight observer, raised where an int32 bias would not hold the bias.

    Raises:
        QuantizationError: not finite or not positive.
    """
    scale = observer.calculate_qparams()[0].detach().numpy().astype(np.float32).reshape(-1)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / np.float32(activation.scale * _BIAS_LIMIT)).astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise QuantizationError(f"{path}: expected positive weight scales, found {scale.min()} to {scale.max()}")
    return np.asarray(scale, np.float32)


def _kept(modules: dict[str, nn.Module], keep: Collection[str]) -> dict[str, str]:
    """Layers that stay fp32, with the reason."""
    paths = set(keep)
    for path in sorted(paths):
        if not any(covers({path}, name) for name in modules):
            near = [name for name in modules if path in name]
            hint = f"; did you mean {near[0]}" if near else ", e.g. encoder.encoders.0.feed_forward.experts.3"
            raise QuantizationError(f"--keep: expected the module path of a layer or above, found {path!r}{hint}")
    kept = {path: "--keep" for path in modules if covers(paths, path)}
    for path, module in modules.items():
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            kept.setdefault(path, "reads the filter bank itself")
    return kept


def _statistics(profile: Profile, path: str, uncovered: set[str]) -> tuple[ActivationStats, bool]:
    """As ``Profile.statistics``; an expert without even borrowed statistics gets those of the layer's others."""
    try:
        return profile.statistics(path, uncovered)
    except ProfileError:
        layer, separator, rest = path.partition(".experts.")
        if not separator:
            raise
        name = rest.partition(".")[2]
        total = ActivationStats.empty()
        for other, statistics in (*profile.inputs.items(), *profile.borrowed.items()):
            if other.startswith(layer + separator) and other.endswith("." + name):
                total = total + statistics
        if not total.seen:
            raise
        return total, True


def _chained(modules: dict[str, nn.Module], layers: dict[str, LayerPlan]) -> dict[str, LayerPlan]:
    """What a convolution writes as uint8 the next layer reads as it is, so that both have one scale."""
    subsampling = [path for path in modules if path.startswith("encoder.embed.")]
    result = dict(layers)
    for path, after in zip(subsampling, subsampling[1:]):
        if result[path].output is not None and result[after].precision == "static":
            result[after] = dataclasses.replace(result[after], input=result[path].output)
    return result


def _span(statistics: ActivationStats) -> float:
    """Width of the range that holds zero and all that was seen."""
    return max(statistics.high, 0.0) - min(statistics.low, 0.0)


def _output(profile: Profile, path: str) -> ActivationStats:
    statistics = profile.outputs.get(path)
    if statistics is None or not statistics.seen or not statistics.high > 0.0:
        raise ProfileError(
            f"calibration profile: expected the output of {path} with values above 0, found none; calibrate again"
        )
    return statistics
