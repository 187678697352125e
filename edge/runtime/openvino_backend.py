"""OpenVINO: the bundle's graphs with dynamic shapes on the CPU, and the way to its other devices.

Caches go in and come out as tensors. As OpenVINO states (``MakeStateful``, one request per stream, trimmed inside the
graph) they cost as much: see docs/engines.md. Tensors need nothing per stream, and a stream can change its engine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime.backend import Backend, initial_state
from edge.runtime.bundle import Bundle
from edge.runtime.errors import BackendError
from edge.runtime.graph_contract import Contract, decoder_contract, default_threads, encoder_contract
from edge.runtime.manifest import Manifest
from edge.runtime.openvino_core import (
    Compilation,
    check_precision,
    compile_model,
    core,
    devices,
    first_line,
    graph_cache,
    openvino,
)
from edge.runtime.openvino_rounding import round_exactly
from edge.runtime.state import EncoderState, Step

_CONVERT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"
_WARM_CHUNKS = 4  # first calls: measured 690, 330, 160, 120 ms, then 60 to 90 (paper scale, int8, one thread)


class OpenVinoBackend:
    """Both graphs on the CPU; see :class:`edge.runtime.backend.Backend`."""

    name = "openvino"
    device = "CPU"

    def __init__(self, bundle: Bundle, threads: int, precision: str = "f32") -> None:
        self.threads, self.precision = threads, precision
        self._manifest = bundle.manifest
        self._warm: set[int] = set()
        check_precision("CPU", precision)
        self._encoder = _graph(bundle, bundle.encoder, encoder_contract(bundle.manifest), threads, precision)
        self._decoder = _graph(bundle, bundle.decoder, decoder_contract(bundle.manifest), threads, precision)

    @classmethod
    def load(cls, bundle: Bundle, device: str = "CPU", threads: int | None = None, precision: str = "f32") -> Backend:
        """Load the bundle's graphs.

        Args:
            bundle: an opened bundle.
            device: "CPU"; "GPU" (or "GPU.1"): an Intel GPU, and the CPU when it cannot be used; "AUTO": a GPU if there
                is one. Lower case will do.
            threads: of the CPU; default: physical cores, at most 4.
            precision: "f32", or "bf16" or "f16" where the device has it: see ``Compilation``.

        Raises:
            BackendError: OpenVINO is not installed, another device or precision, a graph OpenVINO refuses, or inputs
                and outputs unlike the manifest.
        """
        openvino()
        device = device.upper()
        if device != "AUTO" and device.partition(".")[0] not in ("CPU", "GPU"):
            raise BackendError(
                f"device: expected CPU, GPU or AUTO for the openvino engine, found {device!r}; "
                f"this machine has {', '.join(devices())}"
            )
        if device == "CPU":
            return cls(bundle, threads or default_threads(), precision)
        from edge.runtime.openvino_gpu import StaticBackend

        return StaticBackend.load(bundle, device, threads, precision)

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
        """Decoder log-probabilities (N, U, V), left-to-right and right-to-left."""
        inputs: dict[str, NDArray[Any]] = {
            "hyps": hyps,
            "hyps_lens": hyps_lens,
            "encoder_out": np.ascontiguousarray(encoder_out[None]),
        }
        with self._decoder.infer(inputs) as outputs:
            return outputs["score"].copy(), outputs["r_score"].copy()


class Graph:
    """A compiled model for many threads: every call has a request, and so its own memory, to itself."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._names = {output: output.any_name for output in compiled.outputs}
        self._free: list[Any] = []
        self._lock = threading.Lock()

    @contextmanager
    def infer(self, inputs: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs by name; views that end with the ``with``.

        Raises:
            BackendError: OpenVINO failed.
        """
        with self._lock:
            request = self._free.pop() if self._free else None
        try:
            request = request or self.compiled.create_infer_request()
            found = request.infer(inputs, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(f"openvino: {first_line(error)}") from None
        try:
            yield {name: found[output] for output, name in self._names.items()}
        finally:
            with self._lock:
                self._free.append(request)


def as_step(outputs: dict[str, NDArray[Any]], state: EncoderState, hidden: int = 0) -> Step:
    """A copy of an encoder's outputs, without the first ``hidden`` frames of its attention cache.

    Raises:
        BackendError: the log-probabilities hold NaN.
    """
    log_probs, att_cache = outputs["log_probs"], outputs["next_att_cache"]
    if np.isnan(log_probs).any():
        raise BackendError(f"the encoder returned NaN at encoder frame {state.offset}; {_CONVERT}")
    first = hidden + state.keep_from(att_cache.shape[2] - hidden)
    after = EncoderState(
        att_cache[:, :, first:].copy(),
        outputs["next_cnn_cache"].copy(),
        state.offset + log_probs.shape[1],
        state.left_frames,
    )
    counts = outputs.get("expert_counts")
    return Step(log_probs[0].copy(), outputs["encoder_out"][0].copy(), None if counts is None else counts.copy(), after)


def noise_windows(manifest: Manifest, frames: int, count: int) -> list[NDArray[np.float32]]:
    """Windows of ``frames`` encoder frames with log-mel values as loud as speech, always the same ones."""
    stream, random = manifest.stream, np.random.default_rng(0)
    size = ((frames - 1) * stream.subsampling + stream.right_context + 1, manifest.features.num_mel_bins)
    return [random.normal(10.0, 3.0, size).astype(np.float32) for _ in range(count)]


def _graph(bundle: Bundle, path: Path, contract: tuple[Contract, Contract], threads: int, precision: str) -> Graph:
    cache = graph_cache(bundle.manifest.checksums[path.name])
    info = bundle.manifest.encoder if path == bundle.encoder else bundle.manifest.decoder
    try:
        # A path where nothing is changed: OpenVINO need not read the file to find its compiled graph.
        model = str(path) if info.scheme == "fp32" else _rounded(path)
        compiled = compile_model(model, Compilation("CPU", threads, precision, cache))
    except BackendError as error:
        raise BackendError(f"{path}: expected an ONNX graph, {error}; {_CONVERT}") from None
    _check(path, compiled, contract)
    return Graph(compiled)


def _rounded(path: Path) -> Any:
    try:
        model = core().read_model(str(path))
    except RuntimeError as error:
        raise BackendError(f"openvino {openvino().__version__}: {first_line(error)}") from None
    round_exactly(model)
    return model


def _check(path: Path, compiled: Any, contract: tuple[Contract, Contract]) -> None:
    """Names, types and fixed dimensions of the graph are those the manifest promises."""
    for what, promised, ports in (("input", contract[0], compiled.inputs), ("output", contract[1], compiled.outputs)):
        found = {port.any_name: port for port in ports}
        surplus = sorted(set(found) - set(promised)) if what == "input" else []
        if surplus:
            raise BackendError(f"{path}: expected inputs {', '.join(promised)}, found {surplus[0]!r} too; {_CONVERT}")
        for name, (kind, shape) in promised.items():
            if name not in found:
                raise BackendError(f"{path}: expected {what} {name!r}, found {', '.join(found)}; {_CONVERT}")
            port = found[name]
            have = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
            same = len(have) == len(shape) and all(
                want is None or size is None or size == want for want, size in zip(shape, have, strict=True)
            )
            if _TYPES[kind] not in str(port.get_element_type()) or not same:
                raise BackendError(
                    f"{path}: expected {what} {name!r} as {kind} {_shape(shape)}, "
                    f"found {port.get_element_type().get_type_name()} {_shape(have)}; {_CONVERT}"
                )


_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "char"}


def _shape(shape: Any) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
