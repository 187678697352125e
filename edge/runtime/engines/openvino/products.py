"""OpenVINO's 8-bit products, where they are not exact.

On x86 CPUs without VNNI its int8 kernels add pairs of products in 16 bits, as ONNX Runtime's do, and it has none for
unsigned weights. Graphs are computed in float there: activations and weights are the same integers times the same
scales, so that the sums are the integer sums up to float32 rounding, at the speed of an fp32 bundle.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

FLOAT_PRODUCTS = {"LP_TRANSFORMS_MODE": "NO"}
"""A property of OpenVINO's CPU plugin: graphs with quantized layers are compiled as they are written, in float."""


@functools.cache
def saturates() -> bool:
    """Whether OpenVINO's uint8 times int8 products lose what exceeds 16 bits on this CPU.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    depth, columns = 64, 16
    model = product(np.full((columns, depth), 127, np.int8))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    y = compiled(np.full((4, depth), 255, np.float32))[0]
    return not np.allclose(y, depth * 255 * 127, rtol=1e-6)


def product(weight: np.ndarray[Any, np.dtype[np.int8]]) -> Any:
    """``openvino.Model`` of y = x @ weight.T in the form that it turns into an int8 kernel.

    x (rows, in) float32 holds integers of 0..255; weight (out, in).
    """
    import openvino
    from openvino import opset13 as op

    x = op.parameter([-1, weight.shape[1]], np.float32, name="x")
    low, high = op.constant(np.float32(0)), op.constant(np.float32(255))
    rounded = op.fake_quantize(x, low, high, low, high, 256)
    scales = op.constant(np.ones((len(weight), 1), np.float32))
    scaled = op.multiply(op.convert(op.constant(weight), "f32"), scales)
    return openvino.Model([op.matmul(rounded, scaled, False, True)], [x], "product")
