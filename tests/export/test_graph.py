"""The exported graphs against WeNet's own numbers, and the contract they keep on any model."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from export_helpers import Float32, Stream, load, run, tiny_config, tiny_weights
from places import ROOT, SHARED

from edge.export.decoder import decoder_graph
from edge.export.encoder import encoder_graph, moe_layers
from edge.export.graph import GraphBuilder, stored_as_half
from edge.export.linear import FloatScheme
from edge.export.options import ExportError, ExportOptions
from edge.model.config import ModelConfig
from edge.model.train_yaml import from_wenet

TOLERANCE = 1e-4


class Reference:
    """A WeNet experiment and what WeNet computed from it."""

    def __init__(self, name: str) -> None:
        folder = SHARED / "wenet" / name
        if not folder.exists():
            pytest.skip(f"{folder} is absent: WeNet's reference outputs are not part of the repository")
        torch = pytest.importorskip("torch")
        self.config = from_wenet(yaml.safe_load((folder / "train.yaml").read_text()))
        state = torch.load(folder / "final.pt", weights_only=True, map_location="cpu")
        self.weights = {k: v.numpy() for k, v in state.items() if v.is_floating_point()}
        self.arrays = dict(np.load(folder / "reference.npz"))
        self.counts = json.loads((folder / "reference.json").read_text()).get("expert_counts_full", {})

    def encoder(self) -> onnx.ModelProto:
        return encoder_graph(self.config, self.weights, ExportOptions())


@pytest.fixture(scope="module", params=["moe_u2pp", "dense_u2pp", "moe_encoder_only_bn"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def near(found: Float32, wanted: Float32) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < TOLERANCE


def test_full_context_is_wenets(reference: Reference) -> None:
    out = Stream(reference.encoder(), reference.config).step(reference.arrays["feats"])
    near(out["encoder_out"][0], reference.arrays["full_encoder_out"])
    near(out["log_probs"][0], reference.arrays["full_ctc_logp"])
    if reference.counts:
        assert moe_layers(reference.config.encoder) == list(reference.counts)
        assert out["expert_counts"].tolist() == list(reference.counts.values())
    else:
        assert "expert_counts" not in out


@pytest.mark.parametrize(("chunk", "left"), [(16, -1), (16, 4), (8, 2)])
def test_streaming_is_wenets(reference: Reference, chunk: int, left: int) -> None:
    encoder_out, log_probs = Stream(reference.encoder(), reference.config).run(reference.arrays["feats"], chunk, left)
    near(encoder_out, reference.arrays[f"stream_{chunk}_{left}_encoder_out"])
    near(encoder_out, reference.arrays[f"mask_{chunk}_{left}_encoder_out"])
    near(log_probs, reference.arrays[f"stream_{chunk}_{left}_ctc_logp"])


def test_fixed_caches_are_wenets(reference: Reference) -> None:
    """Zero-filled caches of 64 frames, a mask over the part not filled yet, offset from 64."""
    stream = Stream(reference.encoder(), reference.config, cached=64, offset=64)
    outs = []
    for chunk in range(3):
        mask = np.arange(80) >= 64 - 16 * chunk
        outs.append(stream.step(reference.arrays["feats"][64 * chunk : 64 * chunk + 67], keep=64, mask=mask))
    near(np.concatenate([out["encoder_out"][0] for out in outs]), reference.arrays["fixed_16_4_encoder_out"])
    near(stream.att_cache, reference.arrays["fixed_16_4_att_cache"])
    near(stream.cnn_cache, reference.arrays["fixed_16_4_cnn_cache"])


def test_rescoring_is_wenets(reference: Reference) -> None:
    model = decoder_graph(reference.config, reference.weights, ExportOptions())
    out = run(
        load(model),
        hyps=reference.arrays["dec_hyps"],
        hyps_lens=reference.arrays["dec_hyps_lens"],
        encoder_out=reference.arrays["full_encoder_out"][None],
    )
    near(out["score"], reference.arrays["dec_score"])
    near(out["r_score"], reference.arrays["dec_r_score"])


# Below: properties of tiny random models, without WeNet's files.


def features(frames: int, seed: int = 1) -> Float32:
    return np.random.default_rng(seed).standard_normal((frames, 23)).astype(np.float32)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d6", "conv2d8"])
def test_number_of_frames_is_the_contracts(kind: str) -> None:
    config = tiny_config({"input_layer": kind})
    model = encoder_graph(config, tiny_weights(config))
    onnx.checker.check_model(model, full_check=True)
    for frames in (config.encoder.right_context + 1, 40, 41, 42, 43):
        wanted = {
            "conv2d": ((frames - 1) // 2 - 1) // 2,
            "conv2d6": ((frames - 1) // 2 - 2) // 3,
            "conv2d8": (((frames - 1) // 2 - 1) // 2 - 1) // 2,
        }[kind]
        out = Stream(model, config).step(features(frames))
        assert out["log_probs"].shape == (1, wanted, 11)
        assert out["encoder_out"].shape == (1, wanted, 16)
        assert out["next_att_cache"].shape == (2, 2, wanted, 16)
        assert out["next_cnn_cache"].shape == (2, 1, 16, 4)
        assert out["expert_counts"].sum(axis=1).tolist() == [2 * wanted] * 4  # 2 experts per frame
        assert np.allclose(np.exp(out["log_probs"]).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"pos_enc_layer_type": "abs_pos"},
        {"pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn"},
        {"selfattention_layer_type": "selfattn", "macaron_style": False, "mlp_type": "position_wise_feed_forward"},
        {"use_cnn_module": False, "normalize_before": False, "activation_type": "gelu"},
        {
            "kind": "transformer",
            "macaron_style": False,
            "use_cnn_module": False,
            "selfattention_layer_type": "selfattn",
        },
    ],
)
def test_hidden_cache_is_no_cache(change: dict[str, Any]) -> None:
    """Masked frames must not matter, whatever they hold, and must not move the positions of the others."""
    config = tiny_config(change)
    model = encoder_graph(config, tiny_weights(config))
    short, padded = Stream(model, config), Stream(model, config)
    for stream in (short, padded):
        stream.step(features(39))
    hidden = np.random.default_rng(2).standard_normal((2, 2, 5, 16)).astype(np.float32) * 100
    frames = short.att_cache.shape[2]
    padded.att_cache = np.concatenate([hidden, padded.att_cache], axis=2)
    wanted = short.step(features(31, seed=3))
    out = padded.step(features(31, seed=3), mask=np.arange(5 + frames + short.frames(31)) >= 5)
    assert np.abs(out["log_probs"] - wanted["log_probs"]).max() < 1e-5
    assert np.abs(out["next_att_cache"][:, :, 5:] - wanted["next_att_cache"]).max() < 1e-5


def test_positions_stop_at_the_end_of_the_table() -> None:
    """A stream of any length keeps running; up to the end every position counts."""
    config = tiny_config({"pos_enc_layer_type": "abs_pos"})
    model = encoder_graph(config, tiny_weights(config))
    outs = {
        offset: Stream(model, config, offset=offset).step(features(31))["log_probs"]
        for offset in (0, 4998, 4999, 10**6)
    }
    assert np.isfinite(outs[10**6]).all()
    assert np.array_equal(outs[4999], outs[10**6])
    assert np.abs(outs[4998] - outs[4999]).max() > 1e-4
    assert np.abs(outs[0] - outs[4998]).max() > 1e-3


def test_reversed_decoder_reads_the_reversed_tokens() -> None:
    """With the left decoder's weights on the right, r_score is the score of the reversed hypothesis."""
    config = tiny_config()
    weights = tiny_weights(config)
    weights |= {k.replace("left", "right"): v for k, v in weights.items() if "left_decoder" in k}
    session = load(decoder_graph(config, weights))
    memory = np.random.default_rng(4).standard_normal((1, 7, 16)).astype(np.float32)
    tokens = [[1, 2, 3, 4], [5, 6], [], [7, 7, 8]]
    forward, backward = (np.array([[9, *t[::step], *[10] * (4 - len(t))] for t in tokens]) for step in (1, -1))
    lens = np.array([len(t) + 1 for t in tokens])
    out = run(session, hyps=forward, hyps_lens=lens, encoder_out=memory)
    back = run(session, hyps=backward, hyps_lens=lens, encoder_out=memory)
    for row, length in enumerate(lens):
        assert np.abs(out["r_score"][row, :length] - back["score"][row, :length]).max() < 1e-5
        # And a hypothesis scores the same alone, unpadded.
        alone = run(session, hyps=forward[row : row + 1, :length], hyps_lens=lens[row : row + 1], encoder_out=memory)
        assert np.abs(out["score"][row, :length] - alone["score"][0]).max() < 1e-5


def test_decoder_without_a_right_side_returns_zeros() -> None:
    config = tiny_config(decoder={"kind": "transformer"})
    model = decoder_graph(config, tiny_weights(config))
    out = run(load(model), hyps=[[9, 1], [9, 10]], hyps_lens=[2, 1], encoder_out=np.ones((1, 3, 16), np.float32))
    assert out["r_score"].shape == out["score"].shape == (2, 2, 11)
    assert not out["r_score"].any() and out["score"].all()


def test_half_storage_halves_the_weights_and_keeps_routers() -> None:
    config = tiny_config({"output_size": 64, "linear_units": 128, "n_expert": 16}, {"linear_units": 128})
    weights = tiny_weights(config)
    full, half = (encoder_graph(config, weights, ExportOptions(storage=s)) for s in ("fp32", "fp16"))
    stored = {t.name: t.data_type for t in half.graph.initializer}
    assert stored["encoder.encoders.0.feed_forward.experts.3.w_1.weight"] == onnx.TensorProto.FLOAT16
    assert stored["encoder.encoders.0.feed_forward.gate.weight"] == onnx.TensorProto.FLOAT
    saved = sum(w.nbytes // 2 for k, w in weights.items() if stored_as_half(k, w) and not k.startswith("decoder"))
    saved += (5000 - 79 - 64) * 64 * 4  # positions are composed from two small tables
    assert abs(full.ByteSize() - half.ByteSize() - saved) < 0.05 * saved  # the rest are Cast nodes
    # Rounding the weights beforehand must give the fp16 graph's numbers: arithmetic stays float32.
    rounded = {k: w.astype(np.float16).astype(np.float32) if stored_as_half(k, w) else w for k, w in weights.items()}
    outs = [Stream(m, config).step(features(60))["log_probs"] for m in (half, encoder_graph(config, rounded), full)]
    assert np.abs(outs[0] - outs[1]).max() < 1e-5
    assert 0 < np.abs(outs[0] - outs[2]).max() < 0.05


class _Recorder(FloatScheme):
    """A scheme that notes what it was asked for, and doubles one layer."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def linear(self, graph: GraphBuilder, x: str, path: str, weight: Float32, bias: Float32 | None) -> str:
        self.shapes[path] = weight.shape
        return super().linear(graph, x, path, weight * 2 if path == "ctc.ctc_lo" else weight, bias)


def test_every_linear_layer_goes_through_the_scheme() -> None:
    config = tiny_config()
    weights = tiny_weights(config)
    scheme = _Recorder()
    model = encoder_graph(config, weights, scheme=scheme)
    linear = {
        k.removesuffix(".weight"): v.shape[:2]
        for k, v in weights.items()
        if not k.startswith("decoder")
        and (v.ndim == 2 or "pointwise" in k)
        and k.endswith(".weight")
        and "gate" not in k
    }
    assert scheme.shapes == linear
    plain = encoder_graph(config, weights)
    assert (
        np.abs(
            Stream(model, config).step(features(31))["log_probs"]
            - Stream(plain, config).step(features(31))["log_probs"]
        ).max()
        > 0.01
    )


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ctc.ctc_lo.bias", None, "ctc.ctc_lo.bias.*found none"),
        (
            "encoder.encoders.1.norm_ff.weight",
            np.ones(17, np.float32),
            r"expected float32 of shape \(16,\), found float32",
        ),
        ("encoder.encoders.0.feed_forward.gate.weight", np.full((4, 16), np.nan, np.float32), "gate.weight.*NaN"),
        ("encoder.encoders.0.feed_forward.gate.weight", np.ones((4, 16), np.int8), "gate.weight: expected float32"),
        ("encoder.encoders.2.norm_ff.weight", np.ones(16, np.float32), "1 entries do not belong.*encoders.2.norm_ff"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name: str, change: Any, message: str) -> None:
    config: ModelConfig = tiny_config()
    weights = {k: v for k, v in tiny_weights(config).items() if k != name}
    if change is not None:
        weights[name] = change
    with pytest.raises(ExportError, match=message):
        encoder_graph(config, weights)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ExportError, match=r"storage: expected one of fp32, fp16, found 'int4'"):
        ExportOptions(storage="int4")  # type: ignore[arg-type]


def test_exporter_needs_no_torch() -> None:
    code = "import sys, edge.export.encoder, edge.export.decoder, edge.export.save; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
