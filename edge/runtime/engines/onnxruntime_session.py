"""ONNX Runtime sessions whose 8-bit sums are the integer sums on every x86 CPU.

Products of uint8 activations and int8 weights are added in pairs in 16 bits where the CPU has no VNNI (vpmaddubsw), and
what exceeds 16 bits is cut off. ONNX Runtime has exact kernels for uint8 times uint8 there, at 1.0 to 1.3 of the time,
and ``session.x64quantprecision`` makes it turn int8 weights and their zero points into uint8 (+ 128) at load. On a CPU
with VNNI that would lose the VNNI kernels, so ONNX Runtime is asked first what its sums are.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

log = logging.getLogger(__name__)

ort.disable_telemetry_events()  # speech stays on the device, and so does the fact that it was transcribed

_PRODUCT = (
    b'\x08\x05:b\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\x15\n\x01a\x12\x10\n\x0e\x08\x02\x12\n\n\x03\x12'
    b"\x01m\n\x03\x12\x01kZ\x15\n\x01b\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01k\n\x03\x12\x01nb\x15\n\x01y\x12\x10\n"
    b"\x0e\x08\x06\x12\n\n\x03\x12\x01m\n\x03\x12\x01nB\x04\n\x00\x10\n"
)
"""An ONNX model, y = MatMulInteger(a, b) with uint8 a (m, k) and int8 b (k, n): the runtime has no onnx package."""


@functools.cache
def saturates() -> bool:
    """Whether ONNX Runtime's uint8 times int8 products lose what exceeds 16 bits on this CPU."""
    product = _open(_PRODUCT, _options(1))
    rows, depth, columns = 4, 64, 16
    a, b = np.full((rows, depth), 255, np.uint8), np.full((depth, columns), 127, np.int8)
    (y,) = product.run(["y"], {"a": a, "b": b})
    return bool((y != depth * 255 * 127).any())


def session(
    model: Path | str | bytes, threads: int, optimized: Path | None = None, **entries: str
) -> ort.InferenceSession:
    """Load a graph on the CPU.

    Args:
        model: an ONNX file, or its bytes.
        threads: within one operator.
        optimized: a file to write the graph to as it is computed.
        entries: more session options, by the part of their name after ``session.``.

    Raises:
        Exception: of many types, by onnxruntime: it cannot load the model.
    """
    options = _options(threads, entries, optimized)
    if not saturates():
        return _open(model, options)
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return _open(model, options)
    except Exception:
        # ONNX Runtime cannot turn weights whose zero points are one shared constant, as u2edge before 0.2 wrote them
        # in static graphs. In float their sums are right too; those of MatMulInteger would still be cut off.
        if b"MatMulInteger" in (model if isinstance(model, bytes) else Path(model).read_bytes()):
            raise
        options = _options(threads, entries, optimized)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        found = _open(model, options)
        log.warning(
            "this int8 bundle was made by an older u2edge and is computed in float on this processor, which has no "
            "VNNI: the text is right, the speed is not; make it again: u2edge quantize CKPT"
        )
        return found


def _options(threads: int, entries: dict[str, str] | None = None, optimized: Path | None = None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    # Waiting threads sleep. If they spin within a run (spin_duration_us 20 to 1000, force_spinning_stop), large models
    # gain on an idle machine (2 threads, 474 M parameters: int8 0.70 to 0.78 of the time, fp32 0.85 to 0.88), and lose
    # more beside one busy process: up to 1.9 on two cores, where two that sleep take what one alone takes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    for name, value in (entries or {}).items():
        options.add_session_config_entry(f"session.{name}", value)
    return options


def _open(model: Any, options: ort.SessionOptions) -> ort.InferenceSession:
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
