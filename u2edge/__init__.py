"""u2edge: streaming speech recognition with U2++ MoE models on the edge.

Example::

    from u2edge import DecodeOptions, Recognizer

    recognizer = Recognizer.load("models/reference-int8")
    for result in recognizer.transcribe("speech.wav", options=DecodeOptions(chunk_ms=320)):
        print(result.text)

What is named here is imported when it is first used, and none of it needs torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.runtime import (
        AudioError,
        BackendError,
        Bundle,
        BundleError,
        DecodeOptions,
        EdgeError,
        EndpointOptions,
        EngineConfig,
        OptionsError,
        Recognizer,
        Result,
        Stream,
        Token,
        Word,
    )

    __version__: str

__all__ = [
    "AudioError",
    "BackendError",
    "Bundle",
    "BundleError",
    "DecodeOptions",
    "EdgeError",
    "EndpointOptions",
    "EngineConfig",
    "OptionsError",
    "Recognizer",
    "Result",
    "Stream",
    "Token",
    "Word",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'u2edge' has no attribute {name!r}")
    if name == "__version__":
        from edge.system.versions import own_version

        found: Any = own_version()
    else:
        found = getattr(importlib.import_module("edge.runtime"), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
