"""What engines really run: a graph that says int8 and computes in float would only be slower."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

from edge.runtime.bundle import Bundle
from edge.runtime.errors import BackendError
from quant.precision.plan import QuantizationError, QuantizationPlan
from quant.schemes.registry import SCHEMES

INTEGER = ("QGemm", "QLinearConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "MatMulNBits")
FLOAT = ("Gemm", "FusedGemm", "Conv", "FusedConv")
_LEFT = "DequantizeLinear -> float"
_STATIC = ("QGemm", "QLinearConv")


def count_kernels(bundle: Bundle, engine: str = "onnxruntime") -> dict[str, dict[str, int]]:
    """How often each kernel that reads a weight occurs in the graphs as the engine runs them on this CPU.

    Routers and depthwise convolutions, which are never quantized, and products of two activations are not counted.

    Args:
        bundle: an opened bundle.
        engine: onnxruntime: by operator (``INTEGER``, ``FLOAT``), and the DequantizeLinear nodes in front of a float
            one. openvino: by kind and precision, e.g. ``FullyConnected i8``, ``Convolution f32``; here routers count.

    Returns:
        Counts of ``encoder`` and ``decoder``.

    Raises:
        BackendError: another engine, or one that is not installed.
    """
    if engine not in ("onnxruntime", "openvino"):
        raise BackendError(f"engine: expected onnxruntime or openvino, found {engine!r}")
    count = _onnxruntime if engine == "onnxruntime" else _openvino
    return {name: dict(sorted(count(path).items())) for name, path in _graphs(bundle)}


def assert_integer(bundle: Bundle, plan: QuantizationPlan) -> None:
    """Every layer planned static runs as an integer kernel of ONNX Runtime, and no activation scale was made up.

    A convolution without an output scale is float by design; ``linear_pos`` is absent from graphs that store its
    products.

    Raises:
        QuantizationError: a scale of 1.0 with zero point 0, which is what observers return that saw nothing; or the
            layers that stayed float, or do not exist.
    """
    calibrated = {name for name, info in SCHEMES.items() if info.calibrated}
    static = {path: layer for path, layer in plan.layers.items() if layer.precision in calibrated}
    for path, layer in static.items():
        for what, scale in (("input", layer.input), ("output", layer.output)):
            if scale is not None and scale.scale == 1.0 and scale.zero_point == 0:
                raise QuantizationError(
                    f"{path}: expected an {what} scale from calibration, found 1.0 with zero point 0, which is no "
                    "measurement; calibrate with more audio, or let it borrow: u2edge calibrate CKPT --data MANIFEST"
                )
    present, integer = set[str](), set[str]()
    for _, graph in _graphs(bundle):
        present.update(tensor.name for tensor in onnx.load(graph, load_external_data=False).graph.initializer)
        integer.update(_weights(node for node in _optimized(graph).node if node.op_type in _STATIC))
    wanted = {
        path
        for path in static
        if not (".embed.conv." in path and static[path].output is None)
        and (not path.endswith(".linear_pos") or f"{path}.weight" in present)
    }
    if left := sorted(path for path in wanted if f"{path}.weight" not in integer):
        found = "a float kernel" if f"{left[0]}.weight" in present else "no such layer in the graphs"
        raise QuantizationError(
            f"{left[0]}: expected an integer kernel of ONNX Runtime, found {found} ({len(left)} of {len(wanted)} "
            "layers planned static); check the profile against the checkpoint, and the version of onnxruntime"
        )


def _graphs(bundle: Bundle) -> tuple[tuple[str, Path], ...]:
    return tuple(zip(("encoder", "decoder"), bundle.graphs))


def _weights(nodes: Iterable[Any]) -> set[str]:
    # ONNX Runtime renames what it turns into uint8 for CPUs without VNNI.
    names = (name.removesuffix("_s8_2_u8") for node in nodes for name in node.input)
    return {name for name in names if name.endswith(".weight")}


def _onnxruntime(path: Path) -> Counter[str]:
    graph = _optimized(path)
    counts: Counter[str] = Counter()
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in graph.node:
        if node.op_type in INTEGER:
            counts[node.op_type] += 1
        elif node.op_type in FLOAT and not any(".gate." in name or ".depthwise_conv" in name for name in node.input):
            counts[node.op_type] += 1
            counts[_LEFT] += len(dequantized.intersection(node.input))
    return +counts


def _optimized(path: Path) -> Any:
    """The graph after all of ONNX Runtime's optimizations, without its weights."""
    from edge.runtime.engines.onnxruntime_session import session

    with tempfile.TemporaryDirectory(prefix="u2edge-kernels-") as folder:
        out = Path(folder) / "optimized.onnx"
        session(path, 1, out, optimized_model_external_initializers_file_name="weights")
        return onnx.load(out, load_external_data=False).graph


def _openvino(path: Path) -> Counter[str]:
    from edge.runtime.engines.openvino.core import Compilation, compile_model, openvino

    openvino()  # raises BackendError where it is not installed
    model = compile_model(str(path), Compilation())
    counts: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = info["layerType"].astype(str) if "layerType" in info else ""
        if kind in ("FullyConnected", "Convolution"):
            counts[f"{kind} {info['primitiveType'].astype(str).rpartition('_')[2].lower()}"] += 1
    return counts
