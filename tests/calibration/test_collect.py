"""The statistics of one utterance against direct computation, the exported graphs and the streamed model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibration_helpers import MOE_DECODER, centre
from numpy.typing import NDArray
from runtime_helpers import audio

from calibration.collect import CalibrationError, RoutingCounter, StatisticsCollector, load_features, supported_chunks
from calibration.histogram import BINS, ActivationStats, bin_index, count, edges
from calibration.profile import WEIGHT_ONE, CalibrationOptions, Profile
from edge.export.convert import convert
from edge.model.checkpoint import Experiment, load_experiment
from edge.runtime import Recognizer
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import initial_state
from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import AudioError, OptionsError
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from edge.runtime.search import CtcPrefixBeamSearch

OPTIONS = CalibrationOptions(chunks=(4, -1))


@pytest.fixture(scope="module")
def folder(make_experiment: Callable[..., Path]) -> Path:
    return centre(make_experiment(decoder_conf=MOE_DECODER))


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return load_experiment(folder)


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    return audio(2.0).astype(np.float32) / 32768


@pytest.fixture(scope="module")
def features(experiment: Experiment, speech: NDArray[np.float32]) -> NDArray[np.float32]:
    return StreamingFbank(experiment.config.features).accept(speech)


@pytest.fixture(scope="module")
def profile(experiment: Experiment, features: NDArray[np.float32]) -> Profile:
    return StatisticsCollector(experiment, OPTIONS).collect("a", features, 32000)


def histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """By numpy, from the boundaries alone; a magnitude on a boundary belongs to the bin further out."""
    limits = edges()[BINS // 2 + 1 :]
    flat = values.reshape(-1).astype(np.float64)
    positive = np.histogram(flat[flat >= limits[0]], limits)[0]
    negative = np.histogram(-flat[flat <= -limits[0]], limits)[0]
    return np.concatenate([negative[::-1], [np.sum(np.abs(flat) < limits[0])], positive])


def test_histogram_counts_what_its_boundaries_say() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, 20000) * 2.0 ** rng.integers(-20, 12, 20000)).astype(np.float32)
    assert np.array_equal(count(values), histogram(values)) and count(values).sum() == 20000
    corners = np.array(
        [0, -0.0, 2**-16, -(2**-16), 65535, 65536, -65536, 1e30, -1e30, 1e-40, 1, -1, 1.0625], np.float32
    )
    assert np.array_equal(count(corners), np.bincount(bin_index(corners), minlength=BINS))
    assert count(corners)[-1] == 3 and count(corners)[0] == 2  # 65535 lies in the last bin


def test_subsampling_and_first_experts_by_hand(
    experiment: Experiment, features: NDArray[np.float32], profile: Profile
) -> None:
    """Both passes see the same up to the first attention, so everything before it counts twice."""
    weights = experiment.weights
    normed = torch.from_numpy(features) - weights["encoder.global_cmvn.mean"]
    normed = normed * weights["encoder.global_cmvn.istd"]
    statistics = profile.inputs["encoder.embed.conv.0"]
    assert (statistics.rows, statistics.low, statistics.high) == (
        2 * len(features),
        float(normed.min()),
        float(normed.max()),
    )
    assert np.array_equal(statistics.counts, 2 * histogram(normed.numpy()))

    with torch.inference_mode():
        model = experiment.build().encoder
        first = model.embed.conv[0](normed[None, None]).clamp(min=0)
        second = model.embed.conv[2](first).clamp(min=0)
        for path, values in (("encoder.embed.conv.0", first), ("encoder.embed.conv.2", second)):
            out = profile.outputs[path]
            assert (out.rows, out.low, out.high) == (2 * values.size(2), 0.0, pytest.approx(float(values.max()), 1e-5))
            assert out.counts.sum() == 2 * values.numel()
        flat = second.transpose(1, 2).flatten(2)
        assert profile.inputs["encoder.embed.out.0"].counts.sum() == 2 * flat.numel()
        layer: Any = model.encoders[0]
        frames = layer.norm_ff_macaron(model.embed.out(flat) * model.config.output_size**0.5)[0]

    path = "encoder.encoders.0.feed_forward_macaron"
    logits = frames.double().numpy() @ weights[f"{path}.gate.weight"].double().numpy().T
    order = np.argsort(-logits, axis=1)[:, :2]
    best = np.exp(np.take_along_axis(logits, order, 1))
    share = best / best.sum(1, keepdims=True)
    routing = profile.routing[path]
    assert routing.active == 2 and routing.frames.tolist() == [len(frames)] * 2
    for expert in range(4):
        mine = (order == expert).any(1)
        assert routing.counts[:, expert].tolist() == [mine.sum()] * 2
        weight = share[order == expert].sum()
        assert routing.weights[:, expert] == pytest.approx([weight * WEIGHT_ONE] * 2, abs=len(frames) + weight)
        w_1 = profile.inputs[f"{path}.experts.{expert}.w_1"]
        assert w_1.rows == 2 * mine.sum() and np.array_equal(w_1.counts, 2 * histogram(frames[mine].numpy()))
        key = f"{path}.experts.{expert}.w_1"
        for table, rows in ((profile.inputs, mine), (profile.borrowed, np.arange(len(frames)) % 4 == 0)):
            hidden = frames[rows].numpy() @ weights[f"{key}.weight"].numpy().T + weights[f"{key}.bias"].numpy()
            hidden = hidden / (1 + np.exp(-hidden))
            w_2 = table[f"{path}.experts.{expert}.w_2"]
            assert (w_2.rows, w_2.counts.sum()) == (2 * rows.sum(), 2 * hidden.size)
            assert (w_2.low, w_2.high) == pytest.approx((hidden.min(), hidden.max()), rel=1e-5)
            # Rounding may move a value across a boundary.
            assert np.abs(w_2.counts - 2 * histogram(hidden)).sum() <= 0.01 * w_2.counts.sum()
        borrowed = profile.borrowed[f"{path}.experts.{expert}.w_1"]
        assert np.array_equal(borrowed.counts, 2 * histogram(frames[::4].numpy()))


def test_every_layer_is_listed_and_only_those(experiment: Experiment, profile: Profile) -> None:
    """Weights of two dimensions and more are linear layers and convolutions, except the exceptions."""
    wanted = {
        key.removesuffix(".weight")
        for key, value in experiment.weights.items()
        if key.endswith(".weight")
        and value.ndim > 1
        and not any(x in key for x in (".gate.", "depthwise", ".embed.0."))
    }
    assert set(profile.inputs) == wanted
    assert set(profile.outputs) == {"encoder.embed.conv.0", "encoder.embed.conv.2"}
    assert set(profile.borrowed) == {path for path in wanted if ".experts." in path}
    assert all(statistics.seen for path, statistics in profile.inputs.items() if ".experts." not in path)
    # A causal convolution of kernel 5 also sees the 4 zeros that it starts with.
    attention = profile.inputs["encoder.encoders.0.self_attn.linear_q"].rows
    assert profile.inputs["encoder.encoders.0.conv_module.pointwise_conv1"].rows == attention + 2 * 4
    assert profile.inputs["encoder.encoders.0.self_attn.linear_pos"].rows == attention
    assert profile.inputs["encoder.encoders.0.self_attn.linear_pos"].high == 1.0


def test_routing_equals_the_exported_graphs(
    folder: Path, experiment: Experiment, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    """In chunks of 4 and 16 and in full context: the sums of ``expert_counts`` of the graph that a device runs."""
    recognizer = Recognizer.load(convert(folder, tmp_path / "bundle").directory, EngineConfig(threads=1))
    options = CalibrationOptions(chunks=(4, 16, -1))
    features = StreamingFbank(experiment.config.features).accept(speech)
    profile = StatisticsCollector(experiment, options).collect("a", features, len(speech))
    counter = RoutingCounter(experiment.build(), options.chunks)
    quick = dict(zip(counter.layers, counter.count(features)))
    for index, chunk in enumerate(options.chunks):
        manifest = recognizer.manifest
        chunker = FrameChunker(manifest.stream, chunk if chunk > 0 else 1000, manifest.features.num_mel_bins)
        chunker.push(features)
        state, expected = initial_state(manifest.caches, -1), np.zeros((4, 4), np.int64)
        while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
            step = recognizer.backend.step(window, state)
            state, expected = step.state, expected + step.expert_counts
        layers = recognizer.manifest.moe.layers
        have = np.stack([profile.routing[layer].counts[index] for layer in layers])
        assert have.sum(1).tolist() == expected.sum(1).tolist()
        assert (expected > 0).sum() >= 12, "choose another seed: almost all frames go to a few experts"
        assert np.abs(have - expected).max() <= 1  # a near tie may fall the other way in another engine
    for layer in layers:
        assert np.array_equal(quick.pop(layer), profile.routing[layer].counts.sum(0))
    assert not quick


def test_chunk_pass_sees_what_the_streamed_model_sees(experiment: Experiment, features: NDArray[np.float32]) -> None:
    profile = StatisticsCollector(experiment, CalibrationOptions(chunks=(4,))).collect("a", features, 0)
    model, seen = experiment.build(), []
    path = "encoder.encoders.1.self_attn.linear_q"
    model.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
    with torch.inference_mode():
        model.encoder.forward_chunk_by_chunk(torch.from_numpy(features)[None], 4)
    streamed, statistics = torch.cat(seen).numpy(), profile.inputs[path]
    assert statistics.rows == len(streamed)
    assert (statistics.low, statistics.high) == pytest.approx((streamed.min(), streamed.max()), rel=1e-4)
    assert np.abs(statistics.counts - histogram(streamed)).sum() <= 0.02 * statistics.counts.sum()


def test_decoders_see_hypotheses_without_padding(
    experiment: Experiment, features: NDArray[np.float32], profile: Profile
) -> None:
    """Each hypothesis computed by itself from the embedding: rows and values of the first decoder layer."""
    model = experiment.build()
    rows, lengths, frames, values = 0, set(), 0, []
    with torch.inference_mode():
        for chunk in OPTIONS.chunks:
            memory, _ = model.encoder(torch.from_numpy(features)[None], torch.tensor([len(features)]), chunk)
            search = CtcPrefixBeamSearch(10, 0)
            search.advance(model.ctc(memory)[0].numpy())
            decoder: Any = model.decoder
            for hypothesis in search.nbest()[: OPTIONS.hypotheses]:
                tokens = torch.tensor([[experiment.config.sos, *hypothesis.tokens]])
                embedded = decoder.left_decoder.embed(tokens)[0]
                values.append(decoder.left_decoder.decoders[0].norm1(embedded)[0].numpy())
                rows += tokens.size(1)
                lengths.add(tokens.size(1))
            frames += memory.size(1)
    assert len(lengths) > 1, "choose another seed: all hypotheses have the same length, so nothing would be padded"
    statistics = profile.inputs["decoder.left_decoder.decoders.0.self_attn.linear_q"]
    assert statistics.rows == rows and np.array_equal(statistics.counts, histogram(np.concatenate(values)))
    for side in ("left", "right"):
        assert profile.inputs[f"decoder.{side}_decoder.output_layer"].rows == rows
        assert profile.inputs[f"decoder.{side}_decoder.decoders.0.src_attn.linear_k"].rows == frames
        routing = profile.routing[f"decoder.{side}_decoder.decoders.0.feed_forward"]
        assert routing.frames.sum() == rows and routing.counts.sum() == 2 * rows
        assert routing.weights.sum() == pytest.approx(rows * WEIGHT_ONE, rel=1e-5)


def test_an_utterance_counts_the_same_whatever_came_before(
    experiment: Experiment, features: NDArray[np.float32], profile: Profile
) -> None:
    observer = StatisticsCollector(experiment, OPTIONS)
    other = observer.collect("b", features[50:].copy(), 0)
    assert other.inputs != profile.inputs
    assert observer.collect("a", features, 32000).to_bytes() == profile.to_bytes()


def test_activations_that_overflow_name_layer_and_recording(
    experiment: Experiment, features: NDArray[np.float32]
) -> None:
    observer = StatisticsCollector(experiment, OPTIONS)
    with torch.no_grad():
        observer.model.get_parameter("encoder.encoders.1.norm_mha.bias")[0] = float("inf")
    with pytest.raises(CalibrationError, match=r"encoder\.encoders\.1\.self_attn\.linear_k: .*inf for bad\.wav"):
        observer.collect("bad.wav", features, 0)


def test_passes_that_the_model_supports(make_experiment: Callable[..., Path]) -> None:
    static = load_experiment(make_experiment(encoder_conf={"use_dynamic_chunk": False, "static_chunk_size": 5})).config
    assert supported_chunks(static, (16, -1)) == ((5,), "chunks of 5 frames only: the model was trained for them")
    offline = load_experiment(make_experiment(encoder_conf={"causal": False})).config
    chunks, why = supported_chunks(offline, (16, -1))
    assert chunks == (-1,) and "not causal" in why
    streaming = load_experiment(make_experiment()).config
    assert supported_chunks(streaming, (8, 16, -1)) == ((8, 16, -1), "")
    for wrong in ((), (0,), (-2,), (4, 4)):
        with pytest.raises(OptionsError, match="--chunk"):
            supported_chunks(streaming, wrong)


def test_dense_transformer_with_one_decoder(
    make_experiment: Callable[..., Path], features: NDArray[np.float32]
) -> None:
    settings = {"mlp_type": "position_wise_feed_forward", "use_dynamic_chunk": True}
    for encoder in ("transformer", "conformer"):
        folder = make_experiment(encoder=encoder, decoder="transformer", encoder_conf=settings)
        profile = StatisticsCollector(load_experiment(folder), OPTIONS).collect("a", features, 0)
        assert profile.routing == {} and profile.borrowed == {}
        assert profile.inputs["encoder.encoders.1.feed_forward.w_2"].seen
        assert profile.inputs["decoder.decoders.0.src_attn.linear_v"].seen
        assert all(statistics.seen for statistics in profile.inputs.values())


def test_features_are_the_recognizers(tmp_path: Path) -> None:
    """44.1 kHz stereo with dither, cut after a second: as blocks of a live stream give them."""
    import soundfile

    from edge.runtime.audio import Resampler

    samples = audio(3.0).astype(np.float32) / 32768
    soundfile.write(tmp_path / "a.wav", np.stack([samples, samples], 1), 44100, subtype="FLOAT")
    options = FeatureOptions(num_mel_bins=20, dither=1.0)
    frames, heard = load_features(tmp_path / "a.wav", options, 1.0, 6)
    fbank, resampler = StreamingFbank(options), Resampler(44100, 16000)
    blocks = [resampler.accept(samples[i : min(i + 1000, 44100)]) for i in range(0, 44100, 1000)] + [resampler.finish()]
    expected = np.concatenate([fbank.accept(block) for block in blocks])
    assert heard == 16000 and np.array_equal(frames, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.zeros(0, np.float32), "no samples"),
        (lambda: np.zeros(1000, np.float32), "expected at least 85 ms of audio, found 62 ms"),
        (lambda: np.full(16000, np.nan, np.float32), "16000 of 16000"),
    ],
)
def test_audio_that_cannot_be_used(tmp_path: Path, make: Callable[[], Any], message: str) -> None:
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, make(), 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=message) as caught:
        load_features(path, FeatureOptions(), 20.0, 6)
    assert str(path) in str(caught.value)


def test_sites_add_up() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, (60, 7)).astype(np.float32)
    parts = [ActivationStats.of(values[i::3]) for i in range(3)]
    assert parts[2] + ActivationStats.empty() + parts[0] + parts[1] == ActivationStats.of(values)
