"""The chunk graph with every shape fixed, for devices that run dynamic shapes badly or wrongly (Intel GPUs).

Derived from the bundle's own ``encoder.onnx`` with OpenVINO's API when a device asks for it, so that one bundle serves
both engines and every device. Two things make a shape depend on data:

- the left context: it becomes a window of fixed size, whose unfilled part ``att_mask`` hides, and positions are
  counted from its start;
- the experts: the bundle's graph sorts the rows by expert and cuts them by ``expert_counts``. Here every expert gets
  all rows, their outputs lie one after another, and the row that ``expert e`` made of ``row r`` is read at
  ``e * rows + r``. What is computed for a row by the experts that count is the same; the rest is thrown away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.runtime.errors import BackendError
from edge.runtime.manifest import Manifest

_HINT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"


def make_static(model: Any, manifest: Manifest, frames: int, window: int) -> Any:
    """Fix every shape of an encoder.

    Args:
        model: ``openvino.Model`` as read from the bundle; changed in place.
        manifest: of the bundle.
        frames: encoder frames per chunk, C.
        window: frames of attention cache, L > 0.

    Returns:
        ``model``.

    Raises:
        BackendError: a graph with other data-dependent shapes.
    """
    caches = manifest.caches
    for node in model.get_ordered_ops():
        if _is_cut_by_counts(node):
            _all_rows(node, frames)
        elif node.get_type_name() == "Range" and node.input_value(0).get_node().get_type_name() != "Constant":
            _positions(node, frames, window)
    model.validate_nodes_and_infer_types()
    model.reshape(
        {
            "chunk": [1, manifest.stream.window(frames), manifest.features.num_mel_bins],
            "att_cache": [caches.blocks, caches.heads, window, 2 * caches.head_dim],
            "att_mask": [1, 1, window + frames],
        }
    )
    for node in model.get_ordered_ops():
        if any(output.get_partial_shape().is_dynamic for output in node.outputs()):
            raise BackendError(
                f"{manifest.encoder.file}: expected static shapes at {window} + {frames} frames, "
                f"found {node.get_friendly_name()!r} with a dynamic one; {_HINT}"
            )
    return model


def _is_cut_by_counts(node: Any) -> bool:
    return node.get_type_name() == "VariadicSplit" and node.input_value(2).get_node().get_type_name() != "Constant"


def _positions(node: Any, frames: int, window: int) -> None:
    """Replace a range first..end-1 by first + (0, 1, ...): positions of the keys (``offset - L`` on), or of the chunk
    (``offset`` on)."""
    from openvino import opset13 as op

    first = node.input_value(0)
    keys = first.get_node().get_type_name() == "Subtract"
    steps = op.constant(np.arange(window + frames if keys else frames, dtype=np.int64))
    positions = op.add(op.convert(first, "i64"), steps).output(0)
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(positions)


def _all_rows(split: Any, frames: int) -> None:
    """Give every expert all rows: ``split`` cuts the rows sorted by expert; see ``edge.export.experts._sorted``."""
    from openvino import opset13 as op

    sorted_rows = _expect(split.input_value(0).get_node(), "Gather")
    rows = sorted_rows.input_value(0)  # (frames, dim)
    joined = _expect(_follow(split.output(0), "Concat"), "Concat")  # (experts * frames, dim) from now on
    (consumer,) = joined.output(0).get_target_inputs()
    put_back = _expect(consumer.get_node(), "Gather")
    index = put_back.input_value(1).get_node()  # (frames, active), or (frames,) with one active expert
    shaped = index if index.get_type_name() == "Reshape" else None
    inverse = _expect(shaped.input_value(0).get_node() if shaped else index, "TopK")
    order = _expect(inverse.input_value(0).get_node(), "TopK")
    chosen = order.input_value(0)  # (frames * active,)
    active = _active(chosen, frames, shaped)
    kind = chosen.get_element_type()
    dtype = np.int64 if kind.get_type_name() == "i64" else np.int32
    row = op.constant((np.arange(frames * active) // active).astype(dtype))
    where = op.add(op.multiply(chosen, op.constant(dtype(frames))), row).output(0)
    if shaped:
        shaped.input(0).replace_source_output(where)
    else:
        put_back.input(1).replace_source_output(where)
    for output in split.outputs():
        for target in output.get_target_inputs():
            target.replace_source_output(rows)


def _active(chosen: Any, frames: int, shaped: Any) -> int:
    """Experts per row: the last number of the shape the index gets."""
    if shaped is None:
        return 1
    shape = shaped.input_value(1).get_node()
    return int(_expect(shape, "Constant").get_vector()[-1])


def _follow(output: Any, kind: str) -> Any:
    """The first node of ``kind`` down from ``output``, along first consumers."""
    node = output.get_node()
    while node.get_type_name() != kind:
        targets = [target for out in node.outputs()[:1] for target in out.get_target_inputs()]
        if not targets:
            break
        node = targets[0].get_node()
    return node


def _expect(node: Any, kind: str) -> Any:
    if node.get_type_name() != kind:
        raise BackendError(
            f"{node.get_friendly_name()!r}: expected {kind} in the experts of the encoder, "
            f"found {node.get_type_name()}; {_HINT}"
        )
    return node
