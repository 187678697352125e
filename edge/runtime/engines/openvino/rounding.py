"""Activations rounded to int8 as the bundle's graph says, x / scale to the nearest integer.

OpenVINO turns QuantizeLinear into x * (1 / scale) + zero point and rounds that sum. The sum has lost the last bits of
x, and a value near the middle of two steps goes the other way: once in two chunks of the reference model, and every
layer after it differs. Here x / scale is rounded before it gets there, which costs no time that could be measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_TRUE_DIVISION = "nonconvertable_divide_0"  # OpenVINO's mark: no product with 1 / scale, which may differ by a bit


def round_exactly(model: Any) -> int:
    """Put a rounding in front of every quantization of an activation.

    What a convolution writes is left as it is: that rounding is part of its kernel.

    Args:
        model: ``openvino.Model`` as read from an ONNX file; changed in place.

    Returns:
        How many there are.
    """
    from openvino import opset13 as op

    found = [node for node in model.get_ordered_ops() if _of_activation(node)]
    for node in found:
        zero, scale = _zero_point(node), _scale(node)
        if scale == 1:  # the graph rounds already
            continue
        quotient = op.divide(node.input_value(0), op.constant(scale))
        quotient.get_rt_info()[_TRUE_DIVISION] = True
        steps = op.round(quotient, "half_to_even")
        # In units of steps, low and high are integers, and adding the zero point is exact.
        low, high = op.constant(np.float32(-zero)), op.constant(np.float32(255 - zero))
        exact = op.fake_quantize(steps, low, high, node.input_value(3), node.input_value(4), 256)
        exact.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(exact.output(0))
    model.validate_nodes_and_infer_types()
    return len(found)


def _of_activation(node: Any) -> bool:
    if node.get_type_name() != "FakeQuantize" or node.get_levels() != 256:
        return False
    constant = [node.input_value(index).get_node() for index in (1, 2, 3, 4)]
    if any(n.get_type_name() != "Constant" or n.get_data().size != 1 for n in constant):
        return False
    if constant[2].get_data().item() != 0 or constant[3].get_data().item() != 255:
        return False
    source = node.input_value(0).get_node()
    if source.get_type_name() == "Add":  # the bias
        source = source.input_value(0).get_node()
    return source.get_type_name() != "Convolution"


def _zero_point(node: Any) -> int:
    low, high = (float(node.input_value(index).get_node().get_data().item()) for index in (1, 2))
    return round(-low / (high - low) * 255)


def _scale(node: Any) -> np.float32:
    """As it stands in the graph: that of the DequantizeLinear behind it. From the range it could be off by a bit."""
    below = node
    for _ in range(4):  # Convert, Convert, [Subtract], Multiply
        targets = below.output(0).get_target_inputs()
        if not targets:
            break
        below = next(iter(targets)).get_node()
        if below.get_type_name() == "Multiply":
            factor = below.input_value(1).get_node()
            if factor.get_type_name() == "Constant" and factor.get_data().size == 1:
                return np.float32(factor.get_data().item())
            break
    low, high = (node.input_value(index).get_node().get_data().item() for index in (1, 2))
    return np.float32((high - low) / 255)
