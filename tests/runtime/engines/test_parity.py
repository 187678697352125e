"""One bundle, two engines: the same text, the same log-probabilities, ten streams that do not see each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino_helpers import SAMPLES, backend, bundle_dir, fbank, need_openvino, recognizer, steps, windows

from edge.runtime import Bundle, DecodeOptions, Recognizer, load_audio
from edge.runtime.engines.base import Backend, load_backend
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.openvino.products import saturates

ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(autouse=True)
def _needs(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_openvino()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def differences(scheme_or_pair: str | tuple[Backend, Backend], left: int = 64) -> list[float]:
    """Largest difference of a log-probability between the engines, per chunk of the samples; each chunk from the same
    state (onnxruntime's), so that differences do not add up."""
    both = scheme_or_pair
    first, second = (backend(both, e) for e in ENGINES) if isinstance(both, str) else both
    found = []
    for sample in SAMPLES:
        parts = windows(fbank(sample))
        before = None
        for part, step in zip(parts, steps(first, parts, left)):
            state = before or dataclasses.replace(
                step.state, att_cache=step.state.att_cache[:, :, :0], cnn_cache=0 * step.state.cnn_cache, offset=0
            )
            found.append(float(np.abs(second.step(part, state).log_probs - step.log_probs).max()))
            before = step.state
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_ten_interleaved_streams(scheme: str, engine: str) -> None:
    """Every stream writes what it writes alone, to the bit, in chunks and with the second pass."""
    loaded = recognizer(scheme, engine)
    audio = [load_audio(SAMPLES[i % len(SAMPLES)])[0][i * 1000 :] for i in range(10)]
    options = DecodeOptions(chunk_ms=320, left_chunks=8, reencode=True)
    alone = [list(loaded.transcribe(samples, 16000, options)) for samples in audio]
    streams, together = [loaded.stream(options) for _ in audio], [[] for _ in audio]  # type: ignore[var-annotated]
    for start in range(0, max(map(len, audio)), 1600):
        for stream, samples, results in zip(streams, audio, together):
            if start < len(samples):
                results += stream.accept(samples[start : start + 1600], 16000)
    for stream, results in zip(streams, together):
        results += stream.finish()
    assert together == alone
    assert len({tuple(r.text for r in results) for results in alone}) >= len(SAMPLES), "streams that differ"


def test_fp32_chunks_agree() -> None:
    assert max(differences("fp32")) < 1e-3


def test_int8_roundings_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO rounds x * (1 / scale) + zero point, onnxruntime x / scale; ``round_exactly`` removes that difference.
    What is left comes from the order of float sums."""
    if saturates():
        pytest.skip("OpenVINO's products are float on this processor: its sums end in other bits, and ties with them")
    import edge.runtime.engines.openvino.cpu as module

    bundle = Bundle.open(bundle_dir("int8"))
    same = [found <= 2e-2 for found in differences("int8")]
    monkeypatch.setattr(module, "round_exactly", lambda model: 0)
    without = load_backend(bundle, EngineConfig("openvino", threads=1))
    as_read = [found <= 2e-2 for found in differences((backend("int8", "onnxruntime"), without))]
    assert np.mean(same) >= 0.7, "86 % of the chunks of the dev digits"
    assert sum(same) > sum(as_read)


def test_rounding_leaves_the_integer_kernels() -> None:
    """Exec types of the runtime model: as many int8 kernels as layers, with the roundings in front."""
    if saturates():
        pytest.skip("OpenVINO's int8 kernels are not exact on this processor, so none is used")
    engine: Any = backend("int8", "openvino")
    # Of the encoder, the tuner keeps 14 layers of two attentions and two convolutions in float beside the 12 routers.
    for graph, layers, floats in ((engine._encoder, 222, 26), (engine._decoder, 50, 12)):
        kinds = []
        for node in graph.compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) == "FullyConnected":
                kinds.append(info["primitiveType"].astype(str).rpartition("_")[2].lower())
        assert kinds.count("i8") >= layers, "every linear layer planned so"
        assert len(kinds) - kinds.count("i8") <= floats, "routers, and what was kept"


def test_rounding_is_what_the_graph_says() -> None:
    """Ties and their neighbours through the changed graph: x / scale to the nearest, the even one of two."""
    from onnx import TensorProto, helper

    from edge.runtime.engines.openvino.core import core
    from edge.runtime.engines.openvino.rounding import round_exactly

    scale, zero = np.float32(0.0393), 137
    halves = (np.arange(-140, 130, dtype=np.float32) + np.float32(0.5)) * scale
    x = np.concatenate([halves, np.nextafter(halves, np.float32(9)), np.nextafter(halves, np.float32(-9))])
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [float(scale)]),
        helper.make_tensor("z", TensorProto.UINT8, [], [zero]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["x"], ["a"]),
            helper.make_node("Mul", ["a", "sign"], ["v"]),
            helper.make_node("QuantizeLinear", ["v", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(x)]) for name in ("x", "sign")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(x)])],
        constants,
    )
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wanted = np.clip(np.rint(x / scale) + zero, 0, 255)

    def wrong(change: Callable[[Any], Any]) -> int:
        model = core().read_model(onnx_model.SerializeToString())
        change(model)
        request = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        y = request.infer({"x": x, "sign": np.sign(x)})[0]
        return int((np.rint(y / scale) + zero != wanted).sum())

    assert wrong(round_exactly) == 0
    assert wrong(lambda model: None) > 10, "OpenVINO's own"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("neural_compressor")
    from calibration.profile import Profile
    from edge.model.checkpoint import load_experiment
    from quant.bundle import quantize_checkpoint
    from quant.precision.scales import make_plan

    experiment = load_experiment(bundle_dir("fp32").parent / "reference")
    profile = Profile.load(experiment.path / "calibration.profile")
    plan = make_plan(experiment, profile, "static16")
    return quantize_checkpoint(experiment.path, plan, tmp_path_factory.mktemp("wide") / "static16").directory


def test_activations_of_16_bits_make_the_engines_agree(wide: Path) -> None:
    """The same text, and log-probabilities within 2e-2."""
    bundle = Bundle.open(wide)
    both = [load_backend(bundle, EngineConfig(engine, threads=1)) for engine in ENGINES]
    same = [found <= 2e-2 for found in differences((both[0], both[1]))]
    assert np.mean(same) >= 0.95, "a router whose best experts tie is all that may differ"
    texts = []
    for engine in both:
        loaded = Recognizer(bundle, engine)
        options = DecodeOptions(reencode=True)
        texts.append([[r.text for r in loaded.transcribe(sample, options=options)] for sample in SAMPLES])
    assert texts[0] == texts[1] and all(texts[0])


def test_activations_of_16_bits_are_integer_products(wide: Path) -> None:
    """On both engines, with weights that take no more room."""
    from quant.kernels import count_kernels

    bundle = Bundle.open(wide)
    kernels = count_kernels(bundle)
    assert kernels["encoder"]["QGemm"] == 236 and kernels["decoder"]["QGemm"] == 50
    if not saturates():  # float where the processor's 8-bit sums would be cut off
        assert count_kernels(bundle, "openvino")["encoder"]["FullyConnected i8"] >= 236
    assert bundle.manifest.encoder.scheme == "static16"
    size = sum(path.stat().st_size for path in wide.iterdir())
    assert size < 1.05 * sum(path.stat().st_size for path in bundle_dir("int8").iterdir())
