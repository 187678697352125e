"""An Intel GPU for the chunks of a stream, watched over by the CPU.

Only what is worth it and has a fixed shape goes to the GPU: full chunks of the sizes asked for with ``prepare``. The
last, shorter chunk, full context, re-encoding and rescoring, once per utterance and of any size, stay on the CPU. The
state of a stream is the same on both, so any chunk can be computed by either.

Drivers have returned garbage (openvino#36831, #37573, #32666). So every compiled graph is first compared with the CPU,
and whatever goes wrong, then or later, ends the use of the GPU with one line in the log; no chunk is lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import initial_state, noise_windows
from edge.runtime.engines.openvino.core import (
    Compilation,
    check_precision,
    compile_model,
    core,
    first_line,
    graph_cache,
)
from edge.runtime.engines.openvino.cpu import OpenVinoBackend
from edge.runtime.engines.openvino.graph import Graph, as_step
from edge.runtime.engines.openvino.static_graph import make_static
from edge.runtime.errors import BackendError
from edge.runtime.state import EncoderState, Step

log = logging.getLogger(__name__)

TOLERANCE = 0.1
"""Largest relative difference (2-norm) of what GPU and CPU return. In float32 they differ by the order of sums, 1e-6.
In int8 a value between two steps may be rounded either way, and a frame between two experts may change its expert:
0.04 was seen between two engines on one CPU. Garbage differs by about 1."""

_WINDOW = 512  # frames of left context, doubled when a stream that keeps everything outgrows it
_MAX_GRAPHS = 6  # each holds its weights on the GPU

Compile = Callable[[Any, Compilation], Any]


class StaticBackend:
    """Graphs of fixed shape on ``device``, the rest on ``cpu``; see :class:`edge.runtime.engines.base.Backend`."""

    name = "openvino"

    def __init__(
        self, bundle: Bundle, cpu: OpenVinoBackend, device: str, compile_graph: Compile = compile_model
    ) -> None:
        self._bundle, self._manifest, self._cpu, self._device = bundle, bundle.manifest, cpu, device
        self.device = device  # where chunks are computed
        self.threads, self.precision = cpu.threads, cpu.precision
        self.trouble = ""  # why the device is no longer used
        self._compile = compile_graph
        self._sizes: set[int] = set()  # encoder frames per chunk
        self._graphs: dict[tuple[int, int], Graph] = {}  # (frames, window)
        self._full = False
        self._lock = threading.Lock()

    def prepare(self, frames: int, left_frames: int) -> None:
        """Compile for chunks of ``frames`` and compare with the CPU."""
        self._cpu.prepare(frames, left_frames)
        self._sizes.add(frames)
        self._graph(frames, _window(initial_state(self._manifest.caches, left_frames)))

    def step(self, features: NDArray[np.float32], state: EncoderState) -> Step:
        """Encode one window (T, mel); on the CPU when the device cannot, and from then on."""
        frames = self._manifest.stream.encoder_frames(len(features))
        if frames in self._sizes and (graph := self._graph(frames, _window(state))):
            try:
                return _run(graph, features, state, frames, _window(state))
            except BackendError as error:
                if np.isfinite(features).all():
                    self._give_up(str(error))
        return self._cpu.step(features, state)

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """On the CPU: hypotheses and utterances have any size, and it happens once per utterance."""
        return self._cpu.rescore(hyps, hyps_lens, encoder_out)

    def _graph(self, frames: int, window: int) -> Graph | None:
        """Compiled and compared when it is first wanted; None: use the CPU."""
        with self._lock:
            if self.trouble:
                return None
            graph = self._graphs.get((frames, window))
            if graph is None and len(self._graphs) >= _MAX_GRAPHS:
                self._say_full()
            elif graph is None:
                try:
                    graph = self._compiled(frames, window)
                    self._compare(graph, frames, window)
                except (BackendError, RuntimeError, MemoryError) as error:
                    self._give_up(first_line(error))
                    return None
                self._graphs[frames, window] = graph
            return graph

    def _compiled(self, frames: int, window: int) -> Graph:
        check_precision(self._device, self._cpu.precision)
        model = make_static(core().read_model(str(self._bundle.encoder)), self._manifest, frames, window)
        cache = graph_cache(self._manifest.checksums[self._manifest.encoder.file])
        return Graph(self._compile(model, Compilation(self._device, self.threads, self._cpu.precision, cache)))

    def _compare(self, graph: Graph, frames: int, window: int) -> None:
        """Raises BackendError when the device does not compute what the CPU computes: on a second chunk, for which the
        window of left context is filled in part."""
        first, second = noise_windows(self._manifest, frames, 2)
        state = self._cpu.step(first, initial_state(self._manifest.caches, window)).state
        expected, found = self._cpu.step(second, state), _run(graph, second, state, frames, window)
        for name, want, have in (
            ("log_probs", expected.log_probs, found.log_probs),
            ("encoder_out", expected.encoder_out, found.encoder_out),
            ("att_cache", expected.state.att_cache, found.state.att_cache),
            ("cnn_cache", expected.state.cnn_cache, found.state.cnn_cache),
        ):
            off = float(np.linalg.norm(have - want) / (np.linalg.norm(want) + 1e-6))
            if not off <= TOLERANCE:  # also NaN
                raise BackendError(f"its {name} differs from the CPU's by {off:.2g} (expected at most {TOLERANCE:g})")

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            log.warning(
                "openvino: %s holds graphs for %d shapes, chunks of other shapes run on the CPU",
                self._device,
                _MAX_GRAPHS,
            )

    def _give_up(self, reason: str) -> None:
        if not self.trouble:
            self.trouble, self.device = reason, self._cpu.device
            self._graphs.clear()
            log.warning("openvino: %s cannot be used, running on the CPU: %s", self._device, reason)


def _window(state: EncoderState) -> int:
    """Frames of left context of the graph for ``state``: what it keeps, or the next size when it keeps everything."""
    if state.left_frames >= 0:
        return max(state.left_frames, 1)  # a tensor without elements is asking for trouble; the one frame is hidden
    window = _WINDOW
    while window < state.cached:
        window *= 2
    return window


def _run(graph: Graph, features: NDArray[np.float32], state: EncoderState, frames: int, window: int) -> Step:
    """One chunk, the cache set at the right end of the window, the rest of it hidden."""
    hidden = window - state.cached
    blocks, heads, _, size = state.att_cache.shape
    att_cache = np.zeros((blocks, heads, window, size), np.float32)
    att_cache[:, :, hidden:] = state.att_cache
    mask = np.ones((1, 1, window + frames), np.bool_)
    mask[..., :hidden] = False
    inputs: dict[str, NDArray[Any]] = {
        "chunk": np.ascontiguousarray(features[None]),
        "offset": np.array(state.offset, np.int64),
        "att_cache": att_cache,
        "cnn_cache": state.cnn_cache,
        "att_mask": mask,
    }
    with graph.infer(inputs) as outputs:
        return as_step(outputs, state, hidden)
