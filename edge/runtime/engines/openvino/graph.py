"""A compiled graph that many threads use, and how its outputs become a step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime.engines.contract import CONVERT
from edge.runtime.engines.openvino.core import first_line
from edge.runtime.errors import BackendError
from edge.runtime.state import EncoderState, Step


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
        raise BackendError(f"the encoder returned NaN at encoder frame {state.offset}; {CONVERT}")
    first = hidden + state.keep_from(att_cache.shape[2] - hidden)
    after = EncoderState(
        att_cache[:, :, first:].copy(),
        outputs["next_cnn_cache"].copy(),
        state.offset + log_probs.shape[1],
        state.left_frames,
    )
    counts = outputs.get("expert_counts")
    return Step(log_probs[0].copy(), outputs["encoder_out"][0].copy(), None if counts is None else counts.copy(), after)
