"""The protocol every inference engine implements, and the engines by name."""

from __future__ import annotations

import importlib
import operator
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import BackendError
from edge.runtime.manifest import CacheShape, Manifest
from edge.runtime.state import EncoderState, Step

if TYPE_CHECKING:
    from edge.runtime.bundle import Bundle

ENGINES = {
    "onnxruntime": "edge.runtime.engines.onnxruntime:OnnxBackend.load",
    "openvino": "edge.runtime.engines.openvino.backend:load",
}
"""engine -> module:function(bundle, config), imported when asked for, so that one missing engine breaks no other."""

_INSTALL = {"openvino": "'u2edge[openvino]'"}

MAX_THREADS = 256


class Backend(Protocol):
    """One loaded bundle. Stateless between calls: many streams may use it, from several threads."""

    name: str
    device: str  # upper case
    threads: int
    precision: str  # of float arithmetic

    def step(self, features: NDArray[np.float32], state: EncoderState) -> Step:
        """Encode one window (T, mel) of raw fbank frames."""

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decoder log-probabilities, left-to-right and right-to-left, each (N, U, V), for hypotheses (N, U) that
        start with sos and are padded with eos, their lengths (N,) with sos, and one utterance (T, dim)."""


@runtime_checkable
class Preparing(Protocol):
    """A backend that is faster, or able at all, when it knows the chunks that will come."""

    def prepare(self, frames: int, left_frames: int) -> None:
        """Get ready for chunks of ``frames`` encoder frames that keep ``left_frames`` (-1: all) of left context."""


def load_backend(bundle: Bundle, config: EngineConfig) -> Backend:
    """The bundle, loaded into the engine of ``config``, which is not "auto"; threads of None are the engine's default.

    Raises:
        BackendError: unknown or not installed engine, an unknown device, a precision that it does not have, or graphs
            unlike the manifest.
    """
    if config.engine not in ENGINES:
        raise BackendError(f"engine: expected one of {', '.join(ENGINES)}, found {config.engine!r}")
    if config.threads is not None and not 1 <= config.threads <= MAX_THREADS:
        raise BackendError(f"threads: expected 1..{MAX_THREADS}, or none for the default, found {config.threads}")
    module, _, name = ENGINES[config.engine].partition(":")
    try:
        load: Any = operator.attrgetter(name)(importlib.import_module(module))
        return cast(Backend, load(bundle, config))
    except ImportError as error:
        install = _INSTALL.get(config.engine, config.engine)
        raise BackendError(f"engine {config.engine!r} is not installed ({error}); run: pip install {install}") from None


def initial_state(shape: CacheShape, left_frames: int) -> EncoderState:
    """The state before the first chunk: no attention cache, zeros before the first convolution."""
    return EncoderState(
        att_cache=np.zeros((shape.blocks, shape.heads, 0, 2 * shape.head_dim), np.float32),
        cnn_cache=np.zeros((shape.blocks, 1, shape.dim, shape.conv_context), np.float32),
        offset=0,
        left_frames=left_frames,
    )


def noise_windows(manifest: Manifest, frames: int, count: int) -> list[NDArray[np.float32]]:
    """Windows of ``frames`` encoder frames with log-mel values as loud as speech, always the same ones."""
    size = (manifest.stream.window(frames), manifest.features.num_mel_bins)
    random = np.random.default_rng(0)
    return [random.normal(10.0, 3.0, size).astype(np.float32) for _ in range(count)]
