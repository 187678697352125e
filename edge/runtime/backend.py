"""The protocol every inference engine implements, and the engines by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge.runtime.errors import BackendError
from edge.runtime.manifest import CacheShape
from edge.runtime.state import EncoderState, Step

if TYPE_CHECKING:
    from edge.runtime.bundle import Bundle

ENGINES = {
    "onnxruntime": "edge.runtime.onnx_backend:OnnxBackend",
    "openvino": "edge.runtime.openvino_backend:OpenVinoBackend",
}
"""engine -> module:class, imported when asked for, so that one missing engine does not break another."""

_INSTALL = {"openvino": "'u2edge[openvino]'"}

MAX_THREADS = 256


class Backend(Protocol):
    """One loaded bundle. Stateless between calls: many streams may use it, from several threads."""

    name: str
    device: str
    threads: int
    precision: str  # of float arithmetic

    @classmethod
    def load(cls, bundle: Bundle, device: str, threads: int | None) -> Backend:
        """Load both graphs; raises BackendError for an unknown device or graphs unlike the manifest."""

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


def load_backend(
    bundle: Bundle,
    engine: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "f32",
) -> Backend:
    """The bundle, loaded into ``engine``; ``precision`` is that of float arithmetic, "f32" or what the engine offers.

    Raises:
        BackendError: unknown or not installed engine, or as :meth:`Backend.load`.
    """
    if engine not in ENGINES:
        raise BackendError(f"engine: expected one of {', '.join(ENGINES)}, found {engine!r}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise BackendError(f"threads: expected 1..{MAX_THREADS}, or none for the default, found {threads}")
    module, _, name = ENGINES[engine].partition(":")
    try:
        kind: Any = getattr(importlib.import_module(module), name)
        if engine == "openvino":
            return cast(Backend, kind.load(bundle, device, threads, precision))
        if precision != "f32":
            raise BackendError(f"precision: expected f32 for the {engine} engine, found {precision!r}")
        return cast(Backend, kind.load(bundle, device.lower(), threads))
    except ImportError as error:
        install = _INSTALL.get(engine, engine)
        raise BackendError(f"engine {engine!r} is not installed ({error}); run: pip install {install}") from None


def initial_state(shape: CacheShape, left_frames: int) -> EncoderState:
    """The state before the first chunk: no attention cache, zeros before the first convolution."""
    return EncoderState(
        att_cache=np.zeros((shape.blocks, shape.heads, 0, 2 * shape.head_dim), np.float32),
        cnn_cache=np.zeros((shape.blocks, 1, shape.dim, shape.conv_context), np.float32),
        offset=0,
        left_frames=left_frames,
    )
