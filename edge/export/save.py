"""Writes a model to disk, whole or not at all, with external data when it outgrows protobuf."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto

from edge.export.options import ExportError

EXTERNAL_ABOVE = 1_800_000_000  # bytes; protobuf ends at 2 GiB
_ALIGNMENT = 4096  # bytes; a page, so that runtimes can map tensors from the file
_INLINE_BELOW = 1024  # bytes; shapes and scalars stay in the protobuf, where shape inference sees them


def save_graph(model: onnx.ModelProto, path: Path, external_above: int = EXTERNAL_ABOVE) -> list[Path]:
    """Check ``model`` and write it as ``path``; above ``external_above`` bytes of initializers they go
    into ``<name>.data`` beside it.

    The files are complete when they appear: they are written and checked in a temporary folder of
    the same file system, then renamed. ``path`` itself appears last, and an earlier version of it is
    removed before its data file changes.

    Returns:
        The files written, ``path`` first.

    Raises:
        ExportError: the model is not valid ONNX; nothing was written.
        OSError: the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(path.name + ".data")
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        written = folder / path.name
        if size > external_above:
            skeleton = _write_external(model, folder / data.name)
            written.write_bytes(skeleton.SerializeToString())
        else:
            written.write_bytes(model.SerializeToString())
        try:
            onnx.checker.check_model(str(written))
        except onnx.checker.ValidationError as error:
            raise ExportError(
                f"{path.name}: not a valid ONNX graph: {error}; this is a fault of the exporter, "
                "report it with the train.yaml"
            ) from error
        if size <= external_above:
            written.replace(path)
            data.unlink(missing_ok=True)
            return [path]
        path.unlink(missing_ok=True)
        (folder / data.name).replace(data)
        written.replace(path)
        return [path, data]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_external(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """Write the large initializers to ``file``; returns the model with references in their place.

    The model itself is left alone, and its large tensors are never copied.
    """
    skeleton = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.metadata_props.extend(model.metadata_props)
    graph = skeleton.graph
    graph.name, graph.doc_string = model.graph.name, model.graph.doc_string
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    with file.open("wb") as stream:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _INLINE_BELOW:
                graph.initializer.append(tensor)
                continue
            stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
            reference = graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            reference.data_location = TensorProto.EXTERNAL
            for key, value in (("location", file.name), ("offset", stream.tell()), ("length", len(tensor.raw_data))):
                reference.external_data.add(key=key, value=str(value))
            stream.write(tensor.raw_data)
    return skeleton
