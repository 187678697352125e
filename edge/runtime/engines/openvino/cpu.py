"""OpenVINO on the CPU: the bundle's graphs with dynamic shapes.

Caches go in and come out as tensors. As OpenVINO states (``MakeStateful``, one request per stream, trimmed inside the
graph) they cost as much: see docs/engines.md. Tensors need nothing per stream, and a stream can change its engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import initial_state, noise_windows
from edge.runtime.engines.contract import (
    CONVERT,
    NO_DECODER,
    Contract,
    Port,
    check_ports,
    decoder_contract,
    encoder_contract,
)
from edge.runtime.engines.openvino.core import (
    Compilation,
    check_precision,
    compile_model,
    core,
    first_line,
    graph_cache,
    openvino,
)
from edge.runtime.engines.openvino.graph import Graph, as_step
from edge.runtime.engines.openvino.rounding import round_exactly
from edge.runtime.errors import BackendError
from edge.runtime.state import EncoderState, Step

_WARM_CHUNKS = 4  # first calls: measured 690, 330, 160, 120 ms, then 60 to 90 (paper scale, int8, one thread)


class OpenVinoBackend:
    """Both graphs on the CPU; see :class:`edge.runtime.engines.base.Backend`.

    Raises:
        BackendError: a precision that the CPU does not compute in, a graph OpenVINO refuses, or inputs and outputs
            unlike the manifest.
    """

    name = "openvino"
    device = "CPU"

    def __init__(self, bundle: Bundle, threads: int, precision: str = "f32") -> None:
        self.threads, self.precision = threads, precision
        self._manifest = bundle.manifest
        self._warm: set[int] = set()
        check_precision("CPU", precision)
        self._encoder = _graph(bundle, bundle.encoder, encoder_contract(bundle.manifest), threads, precision)
        self._decoder = None
        if bundle.decoder is not None:
            self._decoder = _graph(bundle, bundle.decoder, decoder_contract(bundle.manifest), threads, precision)

    def prepare(self, frames: int, left_frames: int) -> None:
        """Run a few chunks of noise, once per chunk size: OpenVINO writes kernels for shapes when it meets them."""
        if frames in self._warm:
            return
        self._warm.add(frames)
        state = initial_state(self._manifest.caches, left_frames)
        for window in noise_windows(self._manifest, frames, _WARM_CHUNKS):
            state = self.step(window, state).state

    def step(self, features: NDArray[np.float32], state: EncoderState) -> Step:
        """Encode one window of raw fbank frames (T, mel) float32; T >= right_context + 1.

        Raises:
            BackendError: features that are not finite, log-probabilities that hold NaN, or OpenVINO failed.
        """
        if not np.isfinite(features).all():  # its maximum of NaN and 0 is 0: nothing would be seen in the output
            raise BackendError(f"expected finite features at encoder frame {state.offset}, found NaN or infinity")
        frames = self._manifest.stream.encoder_frames(len(features))
        inputs: dict[str, NDArray[Any]] = {
            "chunk": np.ascontiguousarray(features[None]),
            "offset": np.array(state.offset, np.int64),
            "att_cache": state.att_cache,
            "cnn_cache": state.cnn_cache,
            # The cache starts empty and grows: all of it is real, nothing is hidden.
            "att_mask": np.ones((1, 1, state.cached + frames), np.bool_),
        }
        with self._encoder.infer(inputs) as outputs:
            return as_step(outputs, state)

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decoder log-probabilities (N, U, V), left-to-right and right-to-left.

        Raises:
            BackendError: the bundle is CTC only, or OpenVINO failed.
        """
        if self._decoder is None:
            raise BackendError(NO_DECODER)
        inputs: dict[str, NDArray[Any]] = {
            "hyps": hyps,
            "hyps_lens": hyps_lens,
            "encoder_out": np.ascontiguousarray(encoder_out[None]),
        }
        with self._decoder.infer(inputs) as outputs:
            return outputs["score"].copy(), outputs["r_score"].copy()


def _graph(bundle: Bundle, path: Path, contract: tuple[Contract, Contract], threads: int, precision: str) -> Graph:
    cache = graph_cache(bundle.manifest.checksums[path.name])
    info = next(graph for graph in bundle.manifest.graphs if graph.file == path.name)
    try:
        # A path where nothing is changed: OpenVINO need not read the file to find its compiled graph.
        model = str(path) if info.scheme == "fp32" else _rounded(path)
        compiled = compile_model(model, Compilation("CPU", threads, precision, cache))
    except BackendError as error:
        raise BackendError(f"{path}: expected an ONNX graph, {error}; {CONVERT}") from None
    check_ports(path, contract, _ports(compiled.inputs), _ports(compiled.outputs))
    return Graph(compiled)


def _rounded(path: Path) -> Any:
    try:
        model = core().read_model(str(path))
    except RuntimeError as error:
        raise BackendError(f"openvino {openvino().__version__}: {first_line(error)}") from None
    round_exactly(model)
    return model


_KINDS = {"float32": "tensor(float)", "int64_t": "tensor(int64)", "char": "tensor(bool)"}
"""OpenVINO's names of types -> ONNX Runtime's, as a contract has them."""


def _ports(ports: Any) -> list[Port]:
    found = []
    for port in ports:
        shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
        kind = str(port.get_element_type())
        known = next((name for word, name in _KINDS.items() if word in kind), port.get_element_type().get_type_name())
        found.append(Port(port.any_name, known, shape))
    return found
