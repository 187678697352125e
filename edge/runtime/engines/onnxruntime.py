"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.runtime.bundle import Bundle
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.contract import (
    CONVERT,
    NO_DECODER,
    Contract,
    Port,
    check_ports,
    decoder_contract,
    default_threads,
    encoder_contract,
)
from edge.runtime.engines.onnxruntime_session import session
from edge.runtime.errors import BackendError
from edge.runtime.state import EncoderState, Step


class OnnxBackend:
    """Both graphs of a bundle as ONNX Runtime sessions; see :class:`edge.runtime.engines.base.Backend`."""

    name = "onnxruntime"
    device = "CPU"
    precision = "f32"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.threads = threads
        self._manifest = bundle.manifest
        contract = encoder_contract(bundle.manifest)
        self._encoder = _session(bundle.encoder, threads, contract)
        self._outputs = list(contract[1])
        self._decoder = None
        if bundle.decoder is not None:
            self._decoder = _session(bundle.decoder, threads, decoder_contract(bundle.manifest))

    @classmethod
    def load(cls, bundle: Bundle, config: EngineConfig) -> OnnxBackend:
        """Load the bundle's graphs; threads of None: physical cores, at most 4.

        Raises:
            BackendError: another device or precision, a graph ONNX Runtime refuses, or inputs and outputs unlike the
                manifest.
        """
        if config.device != "CPU":
            raise BackendError(f"device: expected CPU for the onnxruntime engine, found {config.device!r}")
        if config.precision != "f32":
            raise BackendError(f"precision: expected f32 for the onnxruntime engine, found {config.precision!r}")
        return cls(bundle, config.threads or default_threads())

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
            raise BackendError(f"the encoder returned NaN at encoder frame {state.offset}; {CONVERT}")
        keep = state.keep_from(att_cache.shape[2])
        if keep:
            att_cache = np.ascontiguousarray(att_cache[:, :, keep:])
        after = EncoderState(att_cache, cnn_cache, state.offset + log_probs.shape[1], state.left_frames)
        return Step(log_probs[0], encoder_out[0], outputs[4] if len(outputs) > 4 else None, after)

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decoder log-probabilities (N, U, V), left-to-right and right-to-left.

        Raises:
            BackendError: the bundle is CTC only.
        """
        if self._decoder is None:
            raise BackendError(NO_DECODER)
        score, r_score = self._decoder.run(
            ["score", "r_score"], {"hyps": hyps, "hyps_lens": hyps_lens, "encoder_out": encoder_out[None]}
        )
        return score, r_score


def _session(path: Path, threads: int, contract: tuple[Contract, Contract]) -> ort.InferenceSession:
    try:
        found = session(path, threads)
    except Exception as error:  # onnxruntime raises many types, RuntimeError the most
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        text = f"onnxruntime {ort.__version__} cannot load it ({reason})"
        raise BackendError(f"{path}: expected an ONNX graph, {text}; {CONVERT}") from None
    check_ports(path, contract, _ports(found.get_inputs()), _ports(found.get_outputs()))
    return found


def _ports(nodes: Any) -> list[Port]:
    sizes = ((node, tuple(size if isinstance(size, int) else None for size in node.shape)) for node in nodes)
    return [Port(node.name, node.type, shape) for node, shape in sizes]
