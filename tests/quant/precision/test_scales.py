"""Scales that neural-compressor finds in a calibration profile, and their rounding inside the torch reference."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import MakeExperiment
from model_helpers import features
from torch import nn

from calibration.collect import StatisticsCollector
from calibration.histogram import ActivationStats
from calibration.profile import CalibrationOptions, CoverageRule, Profile, ProfileError, merge
from edge.export.parity import measure_parity
from edge.model.checkpoint import Experiment, load_experiment
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.onnxruntime import OnnxBackend
from quant.bundle import quantize_checkpoint
from quant.precision.observer_model import ObserverModel, quantizable
from quant.precision.plan import ActivationScale, LayerPlan, Precision, QuantizationError, QuantizationPlan, covers
from quant.precision.scales import Replay, activation_scale, make_plan
from quant.precision.simulate import simulated
from quant.schemes.base import fake_activation
from quant.schemes.dynamic import dynamic_scale

ALL_COVERED = CoverageRule(0.0, 0.0)
NONE_COVERED = CoverageRule(2.0, 0.0)
FIRST = "encoder.embed.conv.0"


def profile_of(experiment: Experiment, utterances: int, frames: int = 150) -> Profile:
    """What the layers see of some smooth noise."""
    observer = StatisticsCollector(experiment, CalibrationOptions())
    return merge([observer.collect(f"{i}", features(frames, seed=i)[0].numpy(), 160) for i in range(utterances)])


@pytest.fixture(scope="module")
def experiment(pristine: Path) -> Experiment:
    return load_experiment(pristine)


@pytest.fixture(scope="module")
def profile(experiment: Experiment) -> Profile:
    return profile_of(experiment, 4)


@pytest.fixture(scope="module")
def plan(experiment: Experiment, profile: Profile) -> QuantizationPlan:
    return make_plan(experiment, profile, observer="minmax", rule=ALL_COVERED)


def closed_form(statistics: ActivationStats) -> tuple[float, int]:
    low, high = min(statistics.low, 0.0), max(statistics.high, 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


def test_minmax_is_the_closed_form_of_the_extremes(plan: QuantizationPlan, profile: Profile) -> None:
    checked, rare = 0, profile.uncovered(ALL_COVERED)  # experts that no frame reached
    for path, layer in plan.layers.items():
        if layer.precision != "static" or path == "encoder.embed.out.0":
            continue
        assert layer.input is not None
        scale, zero = closed_form(profile.statistics(path, rare)[0])
        assert layer.input.scale == pytest.approx(scale, rel=1e-5), path
        assert abs(layer.input.zero_point - zero) <= 1, path
        checked += 1
    assert checked > 50


def test_a_convolution_and_its_reader_share_the_scale_of_the_output(plan: QuantizationPlan, profile: Profile) -> None:
    convolution = plan.layers["encoder.embed.conv.2"]
    assert convolution.output is not None and convolution.output.zero_point == 0
    assert convolution.output.scale == pytest.approx(profile.outputs["encoder.embed.conv.2"].high / 255, rel=1e-5)
    assert plan.layers["encoder.embed.out.0"].input == convolution.output


def test_weight_scales_are_per_output_channel(plan: QuantizationPlan, experiment: Experiment) -> None:
    for path, layer in plan.layers.items():
        if layer.weight_scale is not None:
            largest = experiment.weights[f"{path}.weight"].flatten(1).abs().amax(1).numpy()
            np.testing.assert_allclose(layer.weight_scale, largest / 127.5, rtol=1e-5)


def test_every_layer_of_the_model_has_a_plan(plan: QuantizationPlan, experiment: Experiment) -> None:
    paths = set(quantizable(experiment.build()))
    assert set(plan.layers) == paths
    assert not any(path.endswith((".gate", "depthwise_conv")) for path in paths)
    assert plan.counts() == {"static": len(paths) - 1, "fp32": 1}
    assert plan.layers[FIRST].why  # it reads the filter bank


def test_kl_cuts_the_tails_of_a_normal_distribution_and_loses_less() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 1 << 18).astype(np.float32)
    statistics = ActivationStats.of(values.reshape(-1, 64))
    observer_model = ObserverModel({"x": nn.Linear(64, 8)}, {"x": statistics}, {})
    scales = {}
    for observer in ("minmax", "mse", "kl"):
        prepared = observer_model.prepare(observer)
        observer_model.feed(prepared)
        scales[observer] = activation_scale("x", observer_model.observers(prepared)["x"][0], statistics)
    error = {k: float(np.square(fake(values, s) - values).mean()) for k, s in scales.items()}
    assert scales["minmax"].scale == pytest.approx(closed_form(statistics)[0], rel=1e-5)
    assert scales["kl"] == scales["mse"], "its former name"
    assert scales["mse"].scale < 0.97 * scales["minmax"].scale
    assert error["mse"] < 0.95 * error["minmax"]


def test_every_expert_has_a_scale_of_its_own(experiment: Experiment, profile: Profile, plan: QuantizationPlan) -> None:
    layer = "encoder.encoders.0.feed_forward.experts"
    names = [f"{layer}.{i}.w_2" for i in range(4) if f"{layer}.{i}" not in profile.uncovered(ALL_COVERED)]
    name = names[0]
    wide = dataclasses.replace(profile.inputs[name], high=4 * profile.inputs[name].high)
    changed = make_plan(
        experiment,
        dataclasses.replace(profile, inputs={**profile.inputs, name: wide}),
        observer="minmax",
        rule=ALL_COVERED,
    )
    different = [path for path, layer in plan.layers.items() if layer.input != changed.layers[path].input]
    assert different == [name]
    assert len({plan.layers[name].input for name in names}) == len(names) >= 2


def test_an_uncovered_expert_borrows_and_says_so(experiment: Experiment, profile: Profile) -> None:
    name = "encoder.encoders.0.feed_forward.experts.1.w_2"
    unseen = dataclasses.replace(profile, inputs={**profile.inputs, name: ActivationStats.empty()})
    borrowed = make_plan(experiment, unseen, observer="minmax", rule=NONE_COVERED).layers[name]
    assert borrowed.borrowed and borrowed.input is not None
    assert borrowed.input.scale == pytest.approx(closed_form(profile.borrowed[name])[0], rel=1e-5)


def test_an_expert_without_any_statistics_gets_those_of_its_neighbours(
    experiment: Experiment, profile: Profile
) -> None:
    layer = "encoder.encoders.0.feed_forward.experts"
    name = f"{layer}.1.w_2"
    nothing = {name: ActivationStats.empty()}
    unseen = dataclasses.replace(
        profile, inputs={**profile.inputs, **nothing}, borrowed={**profile.borrowed, **nothing}
    )
    found = make_plan(experiment, unseen, observer="minmax", rule=NONE_COVERED).layers[name]
    others = [t[f"{layer}.{i}.w_2"] for t in (profile.inputs, profile.borrowed) for i in (0, 2, 3)]
    assert found.borrowed and found.input is not None
    assert found.input.high == pytest.approx(max(statistics.high for statistics in others), rel=0.02)


def test_one_short_utterance_still_gives_a_complete_plan(experiment: Experiment) -> None:
    plan = make_plan(experiment, profile_of(experiment, 1, frames=20))
    assert any(layer.borrowed for layer in plan.layers.values())
    for path, layer in plan.layers.items():
        if path != FIRST:
            assert layer.precision == "static" and layer.input is not None, path
            assert (layer.input.scale, layer.input.zero_point) != (1.0, 0), path


def test_an_observer_that_saw_nothing_is_refused() -> None:
    observer_model = ObserverModel(
        {"x.y": nn.Linear(4, 4)}, {"x.y": ActivationStats.of(np.ones((2, 4), np.float32))}, {}
    )
    observer = observer_model.observers(observer_model.prepare("minmax"))["x.y"][0]
    with pytest.raises(QuantizationError, match=r"x\.y.*no data"):
        activation_scale("x.y", observer, None)


def test_a_profile_of_another_checkpoint_is_refused(make_experiment: MakeExperiment, profile: Profile) -> None:
    other = load_experiment(make_experiment(seed=5))
    with pytest.raises(ProfileError, match="expected one of"):
        Replay(other, profile)


def test_kept_paths_stay_float_with_all_below(experiment: Experiment, profile: Profile) -> None:
    keep = ["encoder.encoders.0", "ctc.ctc_lo"]
    plan = make_plan(experiment, None, "weight8", keep=keep)
    for path, layer in plan.layers.items():
        kept = path.startswith(("encoder.encoders.0.", "ctc.")) or path == FIRST
        assert (layer.precision == "fp32") == kept, path
    replay = Replay(experiment, profile, keep=keep)
    assert set(replay.kept) == {path for path, layer in plan.layers.items() if layer.precision == "fp32"}
    assert not set(replay.observer_model.observers(replay.observer_model.prepare("minmax", replay.kept))) & set(
        replay.kept
    )
    with pytest.raises(QuantizationError, match=r"--keep.*'encoder\.encoders\.9'"):
        make_plan(experiment, profile, keep=["encoder.encoders.9"])


def test_other_schemes_need_no_profile(experiment: Experiment) -> None:
    plans = {scheme: make_plan(experiment, None, scheme) for scheme in ("dynamic", "weight8", "weight4")}
    four = {path for path, layer in plans["weight4"].layers.items() if layer.precision == "weight4"}
    assert four and all(".experts." in path for path in four)
    assert set(plans["weight8"].counts()) == {"weight8", "fp32"}
    assert plans["dynamic"].layers["encoder.embed.conv.2"].precision == "weight8"
    with pytest.raises(QuantizationError, match="expected a calibration profile"):
        make_plan(experiment, None, "static")


def fake(values: np.ndarray, scale: ActivationScale) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear in numpy."""
    q = np.clip(np.rint(values / np.float32(scale.scale)) + scale.zero_point, 0, 255)
    return ((q - scale.zero_point) * np.float32(scale.scale)).astype(np.float32)


def test_a_simulated_static_layer_is_numpys_fake_quantization() -> None:
    rng = np.random.default_rng(1)
    layer = nn.Linear(24, 16)
    x = rng.normal(0, 1, (9, 24)).astype(np.float32)
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy()
    scale = ActivationScale(0.013, 97)
    weight_scale = (np.abs(weight).max(1) / 127.5).astype(np.float32)
    plan = QuantizationPlan("static", {"0": LayerPlan("static", scale, weight_scale=weight_scale)})
    model = nn.Sequential(layer)
    before = model(torch.from_numpy(x)).detach().numpy()
    with torch.no_grad(), simulated(model, plan):
        result = model(torch.from_numpy(x)).numpy()
    q = np.clip(np.rint(weight / weight_scale[:, None]), -127, 127) * weight_scale[:, None]
    np.testing.assert_allclose(result, fake(x, scale) @ q.T + bias, atol=1e-5)
    assert np.abs(result - before).max() > 1e-3
    np.testing.assert_array_equal(model(torch.from_numpy(x)).detach().numpy(), before)  # restored


def test_dynamic_scales_hold_zero_and_the_extremes() -> None:
    scale = dynamic_scale(torch.tensor([0.5, 2.0, 1.0]))
    assert scale == ActivationScale(2.0 / 255, 0)
    x = torch.tensor([-1.0, 3.0])
    found = dynamic_scale(x)
    assert found is not None and math.isclose(found.high - found.low, 4.0)
    assert torch.equal(fake_activation(torch.zeros(1), found), torch.zeros(1))
    assert dynamic_scale(torch.zeros(3)) is None


CONVOLUTION, FEED_FORWARD = "encoder.embed.conv.2", "encoder.encoders.1.feed_forward"


@pytest.mark.parametrize(
    ("part", "precision"),
    [(CONVOLUTION, "static"), (FEED_FORWARD, "static"), (FEED_FORWARD, "dynamic"), (FEED_FORWARD, "weight4")],
)
def test_the_simulation_computes_what_the_bundle_computes(
    part: str, precision: Precision, half: tuple[Path, QuantizationPlan], tmp_path: Path
) -> None:
    # One part at a time: a value on the verge of another integer would make all layers after it differ a little.
    folder, every = half
    layers = {path: layer for path, layer in every.layers.items() if covers({part}, path)}
    plan = QuantizationPlan("mixed", layers).fall_back({part}, precision, "")
    bundle = quantize_checkpoint(folder, plan, tmp_path / "bundle")
    backend, speech = OnnxBackend.load(bundle, EngineConfig()), features(150, seed=1)[0].numpy()
    model = load_experiment(folder).build()
    plain = measure_parity(model, backend, bundle.manifest, speech)["full"]
    with simulated(model, plan):
        same = measure_parity(model, backend, bundle.manifest, speech)["full"]
    assert same < 0.3 * plain, (same, plain)


@pytest.fixture(scope="module")
def half(make_experiment: MakeExperiment) -> tuple[Path, QuantizationPlan]:
    """A dense experiment with float16 weights (what stays float is stored as such), and its static plan."""
    folder = make_experiment(encoder_conf={"mlp_type": "position_wise_feed_forward"})
    weights = torch.load(folder / "final.pt", weights_only=True)
    torch.save({name: value.half().float() for name, value in weights.items()}, folder / "final.pt")
    dense = load_experiment(folder)
    return folder, make_plan(dense, profile_of(dense, 2))
