"""The encoder of a bundle that also tells which experts its routers choose. No torch."""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edge.runtime.bundle import Bundle
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import initial_state
from edge.runtime.engines.contract import default_threads
from edge.runtime.engines.onnxruntime_session import session
from edge.runtime.errors import BackendError, BundleError
from edge.runtime.manifest import Manifest
from edge.runtime.options import DecodeOptions, plan
from edge.runtime.state import EncoderState

Floats = NDArray[np.float32]


def modes(manifest: Manifest) -> tuple[tuple[str, int], ...]:
    """(name, encoder frames per chunk) of the modes the model has; -1 is full context."""
    stream = manifest.stream
    streaming = (("streaming", plan(DecodeOptions(), manifest).chunk),) if stream.streaming else ()
    return streaming if stream.streaming and stream.static_chunk else (*streaming, ("full", -1))


@dataclass(frozen=True)
class Routed:
    """Of one utterance: ``log_probs (frames, vocabulary)``; ``chosen (layers, frames, k)`` int64, best first;
    ``logits (layers, frames, experts)`` of the routers."""

    log_probs: Floats
    chosen: NDArray[np.int64]
    logits: Floats


class RoutedEncoder:
    """The encoder of a bundle that also tells which experts it chose. Use as a context manager."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._manifest, self._where = bundle.manifest, bundle.encoder
        model = onnx.load(str(bundle.encoder), load_external_data=False)
        self._routers = expose_routing(model, bundle.manifest.moe.layers, str(bundle.encoder))
        folder = str(bundle.directory.resolve())  # of external data
        self._folder = tempfile.TemporaryDirectory(prefix="u2edge-agreement-")
        path = Path(self._folder.name) / "encoder.onnx"
        try:
            onnx.save(model, str(path))
            self._session = session(
                path, threads or default_threads(), model_external_initializers_file_folder_path=folder
            )
        except Exception as error:  # onnxruntime raises many types
            self._folder.cleanup()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendError(f"{bundle.encoder}: onnxruntime {ort.__version__} cannot load it ({reason})") from None

    def __enter__(self) -> RoutedEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def run(self, features: Floats, chunk: int) -> Routed:
        """``features (frames, mel)`` in chunks of ``chunk`` encoder frames with all left context; -1: as a whole.

        What is longer than the position table is cut, as the recognizer does it.
        """
        m = self._manifest
        limit = m.stream.max_positions
        chunker = FrameChunker(m.stream, chunk if chunk > 0 else limit, m.features.num_mel_bins)
        chunker.push(features)
        names = ["log_probs", "next_att_cache", "next_cnn_cache", *(n for pair in self._routers for n in pair)]
        state, parts = initial_state(m.caches, -1), []
        while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
            frames = m.stream.encoder_frames(len(window))
            if chunk < 0 or state.offset + frames > limit:
                state = initial_state(m.caches, -1)
            log_probs, att_cache, cnn_cache, *routing = self._session.run(
                names,
                {
                    "chunk": np.ascontiguousarray(window[None]),
                    "offset": np.array(state.offset, np.int64),
                    "att_cache": state.att_cache,
                    "cnn_cache": state.cnn_cache,
                    "att_mask": np.ones((1, 1, state.cached + frames), np.bool_),
                },
            )
            if np.isnan(log_probs).any():
                raise BackendError(
                    f"{self._where}: the encoder returned NaN; calibrate with more audio and quantize again"
                )
            state = EncoderState(att_cache, cnn_cache, state.offset + frames, -1)
            parts.append((log_probs[0], routing[0::2], routing[1::2]))
        layers, k, experts = len(self._routers), m.moe.active, m.moe.experts
        return Routed(
            np.concatenate([np.zeros((0, m.tokens.size), np.float32), *(p[0] for p in parts)]),
            np.concatenate([np.zeros((layers, 0, k), np.int64), *(np.array(p[1]) for p in parts if layers)], axis=1),
            np.concatenate([np.zeros((layers, 0, experts), np.float32), *(np.array(p[2]) for p in parts if layers)], 1),
        )


def expose_routing(model: onnx.ModelProto, layers: Sequence[str], where: str = "encoder") -> list[tuple[str, str]]:
    """Add what the routers choose and their logits to the outputs of ``model``; no node is added or changed.

    The router of a layer is the first TopK downstream of ``<layer>.gate.weight``.

    Returns:
        Per layer the names of the chosen experts ``(frames, k)`` int64 and of the logits ``(frames, experts)``.

    Raises:
        BundleError: a layer without a router.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    present = {output.name for output in model.graph.output}
    found = []
    for layer in layers:
        waiting, seen = deque([f"{layer}.gate.weight"]), set[str]()
        top = None
        while waiting and top is None:
            for node in readers[waiting.popleft()]:
                if node.op_type == "TopK":
                    top = node
                    break
                waiting.extend(name for name in node.output if name not in seen)
                seen.update(node.output)
        if top is None:
            raise BundleError(f"{where}: expected a router (Gemm and TopK) on {layer}.gate.weight, found none")
        pair = (top.output[1], top.input[0])
        for name, kind in zip(pair, (TensorProto.INT64, TensorProto.FLOAT)):
            if name not in present:
                model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
                present.add(name)
        found.append(pair)
    return found
