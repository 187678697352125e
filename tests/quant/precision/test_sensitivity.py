"""Sensitivity: nothing quantized costs nothing, a crippled layer is found, and the shortcuts give what torch gives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from calibration.corpus import Utterance
from edge.model.checkpoint import Experiment, load_experiment
from edge.runtime.audio import AudioError
from edge.runtime.features import recording_features
from quant.precision.plan import LayerPlan, QuantizationPlan
from quant.precision.scales import make_plan
from quant.precision.sensitivity import divide, measure_sensitivity
from quant.precision.sensitivity_result import Sensitivity
from quant.precision.simulate import simulated
from quant.report.decode import decode


@pytest.fixture(scope="module")
def experiment(pristine: Path) -> Experiment:
    return load_experiment(pristine)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder, found = tmp_path_factory.mktemp("audio"), []
    for i in range(2):
        rng = np.random.default_rng(i)
        size, step = 24000, 2000
        pitch, level = (np.repeat(10 ** rng.uniform(a, b, size // step), step) for a, b in ((2, 3.5), (-4, 0)))
        tones = 0.5 * level * np.sin(2 * np.pi * np.cumsum(pitch) / 16000) + rng.normal(0, 1e-4, size)
        path = folder / f"{i}.wav"
        soundfile.write(path, tones, 16000)
        found.append(Utterance(path.name, path))
    return found


def absurd(plan: QuantizationPlan, path: str, experiment: Experiment) -> QuantizationPlan:
    """The layer's weights on a grid so coarse that they all become zero."""
    rows = experiment.weights[f"{path}.weight"].shape[0]
    layer = LayerPlan("dynamic", weight_scale=np.full(rows, 1e3, np.float32))
    return QuantizationPlan(plan.scheme, {**plan.layers, path: layer})


def test_an_fp32_plan_costs_nothing(experiment: Experiment, utterances: list[Utterance]) -> None:
    plan = make_plan(experiment, None, "weight8")
    plan = plan.fall_back(set(plan.layers), "fp32", "test")
    seen: list[tuple[int, int]] = []
    found = measure_sensitivity(experiment, plan, utterances, progress=lambda *a: seen.append(a))
    assert found.utterances == 2 and found.seconds == 3.0 and found.frames > 60 and found.tokens >= 2
    assert seen[-1] == (len(found.parts) + len(found.experts),) * 2 and len(seen) == seen[-1][0]
    assert {p.precision for p in found.parts} == {"fp32"}
    for error in (*found.parts, *found.experts, found.encoder, found.decoder):
        assert error.kl == 0.0 and error.routing in (None, 1.0)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("encoder.encoders.0.self_attn.linear_out", "encoder.encoders.0.self_attn"),
        ("encoder.encoders.1.conv_module.pointwise_conv2", "encoder.encoders.1.conv_module"),
        ("encoder.embed.out.0", "encoder.embed"),
        ("decoder.right_decoder.output_layer", "decoder.right_decoder.output_layer"),
        ("ctc.ctc_lo", "ctc.ctc_lo"),
    ],
)
def test_a_crippled_layer_ranks_first(
    experiment: Experiment, utterances: list[Utterance], path: str, part: str
) -> None:
    found = measure_sensitivity(
        experiment, absurd(make_plan(experiment, None, "weight8"), path, experiment), utterances
    )
    worst, second = found.worst(2)
    assert worst.path == part and worst.kl > 10 * second.kl


def test_a_crippled_expert_ranks_first(experiment: Experiment, utterances: list[Utterance]) -> None:
    plan = make_plan(experiment, None, "weight8")
    used = [e for e in measure_sensitivity(experiment, plan, utterances).experts if e.rows]
    target = max(used, key=lambda e: (e.layer == "encoder.encoders.0.feed_forward", e.rows))
    path = f"{target.layer}.experts.{target.expert}.w_2"
    found = measure_sensitivity(experiment, absurd(plan, path, experiment), utterances)
    worst = max(found.experts, key=lambda e: e.kl)
    assert (worst.layer, worst.expert) == (target.layer, target.expert)
    assert worst.routing is not None and worst.routing <= target.routing
    # every row is counted once per active expert, and an expert that saw nothing cost nothing
    frames = sum(e.rows for e in found.experts if e.layer == target.layer)
    assert frames == 2 * found.frames
    assert all(e.kl == 0.0 for e in found.experts if not e.rows)


@pytest.mark.parametrize("chunk", [4, -1])
def test_equal_to_whole_passes_of_torch(experiment: Experiment, utterances: list[Utterance], chunk: int) -> None:
    """Parts are measured from their block on; a plain pass over everything gives the same."""
    plan = make_plan(experiment, None, "dynamic")
    found = measure_sensitivity(experiment, plan, utterances, chunk=chunk)
    assert found.chunk == chunk
    model = experiment.build()
    inputs = [torch.from_numpy(recording_features(u.audio, experiment.config.features)[0])[None] for u in utterances]

    def log_probs() -> torch.Tensor:
        outputs = [model.ctc(model.encoder(x, torch.tensor([x.size(1)]), chunk)[0])[0] for x in inputs]
        return torch.cat(outputs).double()

    parts, experts = divide(plan)
    ours = {p.path: p.kl for p in found.parts} | {f"{e.layer}.experts.{e.expert}": e.kl for e in found.experts}
    assert list(ours) == [*parts, *experts]
    with torch.inference_mode():
        p = log_probs()
        for path, kl in ours.items():
            if path.startswith("decoder."):
                continue
            with simulated(model, plan, {path}):
                q = log_probs()
            assert kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).clamp(min=0).mean()), rel=1e-3, abs=1e-9)
        with simulated(model, plan):
            q = log_probs()
        assert found.encoder.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).clamp(min=0).mean()), rel=1e-3)


def test_routing_is_that_of_later_layers(experiment: Experiment, utterances: list[Utterance]) -> None:
    found = measure_sensitivity(experiment, make_plan(experiment, None, "weight8"), utterances)
    routing = {p.path: p.routing for p in found.parts}
    assert routing["encoder.encoders.1.feed_forward"] is None  # nothing comes after its experts
    assert routing["ctc.ctc_lo"] is None and routing["decoder.left_decoder.output_layer"] is None
    assert routing["encoder.encoders.0.feed_forward_macaron"] is not None
    assert routing["encoder.encoders.1.conv_module"] is not None


def test_parts() -> None:
    names = [
        "encoder.embed.conv.0",
        "encoder.embed.out.0",
        "encoder.encoders.11.self_attn.linear_q",
        "encoder.encoders.11.feed_forward_macaron.experts.3.w_1",
        "encoder.encoders.11.feed_forward_macaron.experts.3.w_2",
        "encoder.encoders.2.feed_forward.w_1",
        "ctc.ctc_lo",
        "decoder.left_decoder.decoders.0.src_attn.linear_q",
        "decoder.decoders.2.feed_forward.w_1",
        "decoder.output_layer",
    ]
    parts, experts = divide(QuantizationPlan("static", {name: LayerPlan("fp32") for name in names}))
    assert parts == {
        "encoder.embed": set(names[:2]),
        "encoder.encoders.11.self_attn": {names[2]},
        "encoder.encoders.11.feed_forward_macaron": set(names[3:5]),
        "encoder.encoders.2.feed_forward": {names[5]},
        "ctc.ctc_lo": {names[6]},
        "decoder.left_decoder.decoders.0.src_attn": {names[7]},
        "decoder.decoders.2.feed_forward": {names[8]},
        "decoder.output_layer": {names[9]},
    }
    assert experts == {"encoder.encoders.11.feed_forward_macaron.experts.3": set(names[3:5])}


def test_json_and_back(experiment: Experiment, utterances: list[Utterance]) -> None:
    found = measure_sensitivity(experiment, make_plan(experiment, None, "weight8"), utterances[:1])
    assert decode(Sensitivity, json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False)), "") == found


def test_too_short(experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(800, np.float32), 16000)
    with pytest.raises(AudioError, match="choose longer ones"):
        measure_sensitivity(experiment, make_plan(experiment, None, "weight8"), [Utterance("short", path)])
