"""A thin typed layer over onnx.helper: names, constants, weights, linear layers, the finished model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.export.linear import FloatScheme, LinearScheme
from edge.export.options import DEFAULT_OPTIONS, ExportError, ExportOptions

OPSET = 17  # LayerNormalization; read by ONNX Runtime 1.12+ and OpenVINO 2023+
IR_VERSION = 8

Array = npt.NDArray[np.generic]
Float32 = npt.NDArray[np.float32]
Weights = Mapping[str, Float32]
Attribute = int | float | str | Sequence[int]

_HALF_MIN_ELEMENTS = 1024  # below this float16 saves nothing worth the rounding
_HALF_MAX = float(np.finfo(np.float16).max)
_REARRANGE = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


def stored_as_half(name: str, array: Array) -> bool:
    """Whether fp16 storage keeps the float32 weight ``name`` as float16.

    Matrices and convolutions that are large and in float16's range. Not the routers, whose near-ties
    rounding would flip, nor positions and depthwise kernels, which are small beside the rest.
    """
    if array.dtype != np.float32 or array.ndim < 2 or array.size < _HALF_MIN_ELEMENTS:
        return False
    if name.endswith((".gate.weight", ".pe")) or ".depthwise_conv." in name:
        return False
    return float(np.abs(array).max()) <= _HALF_MAX


class GraphBuilder:
    """Collects the nodes of one graph; every value is known by its name (``str``).

    Equal nodes (operator, inputs, attributes) and equal constants are emitted once, so callers ask
    for a shape wherever they need it.

    Args:
        name: graph name, e.g. ``encoder``.
        weights: WeNet's state_dict keys -> float32 arrays.
        options: how to compute; see ExportOptions.
        scheme: expands linear layers; float32 when None.
    """

    def __init__(
        self, name: str, weights: Weights, options: ExportOptions = DEFAULT_OPTIONS, scheme: LinearScheme | None = None
    ) -> None:
        self.options = options
        self._name = name
        self._weights = weights
        self._scheme: LinearScheme = scheme or FloatScheme()
        self._used: set[str] = set()
        self._scope: list[str] = []
        self._names: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._known: dict[tuple[object, ...], list[str]] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._tensors: dict[str, Array] = {}  # arrays, not protobufs: weights are copied once, into the model
        self._readable: dict[str, str] = {}  # initializer -> the float32 value nodes read
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._domains: set[str] = set()

    # Inputs, outputs and nodes

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str], doc: str) -> str:
        """Declare a graph input; a ``str`` in ``shape`` is a symbolic dimension."""
        self._inputs.append(_value_info(self._unique(name), dtype, shape, doc))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Sequence[int | str], doc: str) -> None:
        """Declare ``value`` as the graph output called ``name``."""
        self._outputs.append(_value_info(self._unique(name), dtype, shape, doc))
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output:{name}"))

    def node(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output and return the name of that output."""
        return self.nodes(op, 1, *inputs, domain=None, **attributes)[0]

    def nodes(
        self, op: str, outputs: int, *inputs: str, domain: str | None = None, **attributes: Attribute
    ) -> list[str]:
        """Add a node with ``outputs`` outputs and return their names.

        ``domain`` is for ONNX Runtime's own operators (``com.microsoft``), version 1.
        """
        signature = (domain, op, outputs, inputs, repr(sorted(attributes.items())))
        if signature not in self._known:
            name = self._unique("/".join([scope for scope in self._scope[-1:] if scope] + [op]))
            names = [name] if outputs == 1 else [self._unique(f"{name}:{i}") for i in range(outputs)]
            node = helper.make_node(op, inputs, names, name=name, domain=domain)
            node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
            self._nodes.append(node)
            self._domains.add(domain or "")
            self._known[signature] = names
            self._producers.update(dict.fromkeys(names, node))
        return self._known[signature]

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes added inside with a module path, for profiles and viewers.

        An empty ``name`` is for nodes that runtimes fold or fuse: a name is stored with every use of a value, and
        paths add up to a tenth of a small int8 model.
        """
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def source(self, x: str) -> str:
        """The value whose elements ``x`` holds in another order or shape; ``x`` itself when it was computed."""
        while x in self._producers and self._producers[x].op_type in _REARRANGE:
            x = self._producers[x].input[0]
        return x

    # Constants

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """An unnamed constant; equal constants are stored once."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, hashlib.sha1(array.tobytes()).digest())
        if key not in self._constants:
            name = self._unique(f"const_{len(self._constants)}")
            self._tensors[name] = array
            self._constants[key] = name
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A 1-D int64 constant: axes, shapes, bounds."""
        return self.constant(values, np.int64)

    def scalar(self, value: int | float) -> str:
        """An int64 scalar for an ``int``, a float32 scalar for a ``float``."""
        return self.constant(value, np.int64 if isinstance(value, int) else np.float32)

    # Weights

    def has(self, name: str) -> bool:
        return name in self._weights

    def array(self, name: str, *shape: int) -> Float32:
        """The weight ``name`` as float32 of exactly ``shape`` and finite; remembers that it was used.

        Raises:
            ExportError: the weight is missing, of another shape or type, or holds NaN or infinity.
        """
        if name not in self._weights:
            raise ExportError(
                f"weights: expected {name!r} of shape {shape}, found none; "
                "use the train.yaml and final.pt of the same experiment"
            )
        array = np.asarray(self._weights[name])
        if array.shape != shape or array.dtype.kind != "f":
            raise ExportError(
                f"weights: {name}: expected float32 of shape {shape}, found {array.dtype} of shape "
                f"{array.shape}; use the train.yaml and final.pt of the same experiment"
            )
        if not np.isfinite(array).all():
            raise ExportError(
                f"weights: {name}: expected finite values, found NaN or infinity; "
                "the checkpoint is damaged or its training diverged, use an earlier one"
            )
        self._used.add(name)
        return np.ascontiguousarray(array, dtype=np.float32)

    def weight(self, name: str, *shape: int) -> str:
        """The weight ``name`` as an initializer."""
        return self.initializer(name, self.array(name, *shape))

    def initializer(self, name: str, array: Array) -> str:
        """A named initializer holding ``array``; returns the value to read, float32 if ``array`` is.

        Under fp16 storage a weight for which ``stored_as_half`` holds is stored as float16 and read
        through a Cast, which runtimes fold when they load the graph.
        """
        if name not in self._readable:
            half = self.options.storage == "fp16" and stored_as_half(name, array)
            tensor = self._unique(name)
            self._tensors[tensor] = array.astype(np.float16) if half else array
            self._readable[name] = self.node("Cast", tensor, to=TensorProto.FLOAT) if half else tensor
        return self._readable[name]

    def linear(self, x: str, path: str, in_features: int, out_features: int, bias: bool = True) -> str:
        """``x (rows, in_features)`` through the linear layer (or pointwise convolution) at ``path``."""
        name = f"{path}.weight"
        pointwise = (1,) if self.has(name) and np.ndim(self._weights[name]) == 3 else ()  # Conv1d of kernel 1
        weight = self.array(name, out_features, in_features, *pointwise).reshape(out_features, in_features)
        offset = self.array(f"{path}.bias", out_features) if bias else None
        with self.scope(path):
            return self._scheme.linear(self, x, path, weight, offset)

    def conv2d(self, x: str, path: str, in_channels: int, out_channels: int, kernel: int, stride: int) -> str:
        """``x (1, in_channels, height, width)`` through the convolution at ``path`` and a ReLU; square kernel."""
        weight = self.array(f"{path}.weight", out_channels, in_channels, kernel, kernel)
        with self.scope(path):
            return self._scheme.conv2d(self, x, path, weight, self.array(f"{path}.bias", out_channels), stride)

    def ignore(self, *names: str) -> None:
        """Weights that the checkpoint holds and inference does not use."""
        self._used.update(names)

    def check_all_used(self, *prefixes: str) -> None:
        """Every weight under ``prefixes`` must have been used or ignored.

        Raises:
            ExportError: some were not, so the configuration describes another model.
        """
        left = [
            name
            for name in self._weights
            if name.startswith(prefixes)
            and name not in self._used
            and not name.endswith(("num_batches_tracked", ".pe"))
        ]
        if left:
            raise ExportError(
                f"weights: {len(left)} entries do not belong to the configured model, first {left[0]!r}; "
                "use the train.yaml and final.pt of the same experiment"
            )

    # Shapes

    def dim(self, x: str, axis: int) -> str:
        """Size of one axis as a 1-D value, ready for Concat into a shape."""
        return self.node("Shape", x, start=axis, end=axis + 1)

    def size(self, x: str, axis: int) -> str:
        """Size of one axis as a scalar."""
        return self.node("Squeeze", self.dim(x, axis), self.ints(0))

    def reshape(self, x: str, *shape: int | str) -> str:
        """Reshape; 0 copies the axis of ``x``, a ``str`` is a 1-D value such as ``dim()`` gives."""
        if all(isinstance(s, int) for s in shape):
            return self.node("Reshape", x, self.ints(*(s for s in shape if isinstance(s, int))))
        parts = [self.ints(s) if isinstance(s, int) else s for s in shape]
        return self.node("Reshape", x, self.node("Concat", *parts, axis=0))

    def transpose(self, x: str, *perm: int) -> str:
        return self.node("Transpose", x, perm=perm)

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.node("Unsqueeze", x, self.ints(*axes))

    def squeeze(self, x: str, *axes: int) -> str:
        return self.node("Squeeze", x, self.ints(*axes))

    def concat(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self.node("Concat", *values, axis=axis)

    def stack(self, values: Sequence[str]) -> str:
        """Join equal shapes along a new first axis."""
        return self.concat([self.unsqueeze(v, 0) for v in values], axis=0)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut ``axis`` into parts of known sizes."""
        return self.nodes("Split", len(sizes), x, self.ints(*sizes), axis=axis)

    # The finished model

    def model(self, doc: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The graph as a model; nodes and initializers that no output needs are dropped.

        Initializers are listed in the order of their first use, which is the order a runtime reads
        external data in.
        """
        needed = {info.name for info in self._outputs}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        kept = _rename_outputs(kept[::-1])
        used = dict.fromkeys(name for node in kept for name in node.input if name in self._tensors)
        graph = helper.make_graph(kept, self._name, self._inputs, self._outputs, doc_string=doc)
        opsets = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in sorted(self._domains | {""})]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="u2edge")
        helper.set_model_props(model, dict(metadata))
        for name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(self._tensors[name]), name))
        return model

    def _unique(self, name: str) -> str:
        base, count = name, 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name


def _rename_outputs(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Give values that became graph outputs their declared names, in place of an Identity after them.

    Beside saving a node this leaves one name per output; OpenVINO would otherwise list both. An
    Identity stays where a graph input, or a value already renamed, is passed on.
    """
    produced = {name for node in nodes for name in node.output}
    names: dict[str, str] = {}
    kept = []
    for node in nodes:
        if node.op_type == "Identity" and node.input[0] in produced and node.input[0] not in names:
            names[node.input[0]] = node.output[0]
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return kept


def _value_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str], doc: str) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape), doc_string=doc)
