"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.runtime.bundle import Bundle
from edge.runtime.errors import BackendError
from edge.runtime.graph_contract import Contract, decoder_contract, default_threads, encoder_contract
from edge.runtime.onnx_session import session
from edge.runtime.state import EncoderState, Step

_CONVERT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"


class OnnxBackend:
    """Both graphs of a bundle as ONNX Runtime sessions; see :class:`edge.runtime.backend.Backend`."""

    name = "onnxruntime"
    device = "cpu"
    precision = "f32"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.threads = threads
        self._manifest = bundle.manifest
        inputs, outputs = encoder_contract(bundle.manifest)
        self._encoder = _session(bundle.encoder, threads)
        _check_graph(bundle.encoder, self._encoder, inputs, outputs)
        self._outputs = list(outputs)
        inputs, outputs = decoder_contract(bundle.manifest)
        self._decoder = _session(bundle.decoder, threads)
        _check_graph(bundle.decoder, self._decoder, inputs, outputs)

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu", threads: int | None = None) -> OnnxBackend:
        """Load the bundle's graphs.

        Args:
            bundle: an opened bundle.
            device: "cpu".
            threads: within one operator; default: physical cores, at most 4.

        Raises:
            BackendError: another device, a graph ONNX Runtime refuses, or inputs and outputs unlike the manifest.
        """
        if device != "cpu":
            raise BackendError(f"device: expected cpu for the onnxruntime engine, found {device!r}")
        return cls(bundle, threads or default_threads())

    def step(self, features: NDArray[np.float32], state: EncoderState) -> Step:
        """Encode one window of raw fbank frames (T, mel) float32; T >= right_context + 1.

        Raises:
            BackendError: the log-probabilities hold NaN.
        """
        frames = self._manifest.stream.encoder_frames(len(features))
        # Plain run(): I/O binding with caches held by onnxruntime took 0.99 to 1.00 of its time (27 M parameters,
        # chunk 16, left context 64 and 256 frames, 1.6 and 6.3 MB of cache), for a second way to own memory.
        outputs: list[Any] = self._encoder.run(
            self._outputs,
            {
                "chunk": np.ascontiguousarray(features[None]),
                "offset": np.array(state.offset, np.int64),
                "att_cache": state.att_cache,
                "cnn_cache": state.cnn_cache,
                # The cache starts empty and grows: all of it is real, nothing is hidden.
                "att_mask": np.ones((1, 1, state.cached + frames), np.bool_),
            },
        )
        log_probs, encoder_out, att_cache, cnn_cache = outputs[:4]
        if np.isnan(log_probs).any():
            raise BackendError(f"the encoder returned NaN at encoder frame {state.offset}; {_CONVERT}")
        keep = state.keep_from(att_cache.shape[2])
        if keep:
            att_cache = np.ascontiguousarray(att_cache[:, :, keep:])
        after = EncoderState(att_cache, cnn_cache, state.offset + log_probs.shape[1], state.left_frames)
        return Step(log_probs[0], encoder_out[0], outputs[4] if len(outputs) > 4 else None, after)

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decoder log-probabilities (N, U, V), left-to-right and right-to-left."""
        score, r_score = self._decoder.run(
            ["score", "r_score"], {"hyps": hyps, "hyps_lens": hyps_lens, "encoder_out": encoder_out[None]}
        )
        return score, r_score


def _session(path: Path, threads: int) -> ort.InferenceSession:
    try:
        return session(path, threads)
    except Exception as error:  # onnxruntime raises many types, RuntimeError the most
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        found = f"onnxruntime {ort.__version__} cannot load it ({reason})"
        raise BackendError(f"{path}: expected an ONNX graph, {found}; {_CONVERT}") from None


def _check_graph(path: Path, session: ort.InferenceSession, inputs: Contract, outputs: Contract) -> None:
    """Names, types and fixed dimensions of the graph are those the manifest promises."""
    for what, contract, nodes in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        found = {node.name: node for node in nodes}
        surplus = sorted(set(found) - set(contract)) if what == "input" else []
        if surplus:
            raise BackendError(f"{path}: expected inputs {', '.join(contract)}, found {surplus[0]!r} too; {_CONVERT}")
        for name, (kind, shape) in contract.items():
            if name not in found:
                raise BackendError(f"{path}: expected {what} {name!r}, found {', '.join(found)}; {_CONVERT}")
            node = found[name]
            same = len(node.shape) == len(shape) and all(
                want is None or not isinstance(have, int) or have == want
                for want, have in zip(shape, node.shape, strict=True)
            )
            if node.type != kind or not same:
                raise BackendError(
                    f"{path}: expected {what} {name!r} as {kind} {_shape(shape)}, found {node.type} "
                    f"{_shape(node.shape)}; {_CONVERT}"
                )


def _shape(shape: Any) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
