"""The device side: a torch-free streaming recognizer for bundles written by ``edge.export``.

Engines are imported when a bundle is loaded, not here.
"""

from edge.runtime.audio_files import Clip, DamagedAudio, audio_seconds, load_audio, read_blocks
from edge.runtime.bundle import Bundle, write_bundle
from edge.runtime.endpoint import EndpointOptions, EndpointRule
from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import (
    AudioError,
    BackendError,
    BundleError,
    EdgeError,
    OptionsError,
    StreamError,
    TokenError,
)
from edge.runtime.manifest import Manifest, ManifestError
from edge.runtime.options import DecodeOptions
from edge.runtime.recognizer import Recognizer
from edge.runtime.result import Hypothesis, Result, Token, Word
from edge.runtime.stats import StreamStats
from edge.runtime.stream import Stream

__all__ = [
    "AudioError",
    "BackendError",
    "Bundle",
    "BundleError",
    "Clip",
    "DamagedAudio",
    "DecodeOptions",
    "EdgeError",
    "EndpointOptions",
    "EndpointRule",
    "EngineConfig",
    "Hypothesis",
    "Manifest",
    "ManifestError",
    "OptionsError",
    "Recognizer",
    "Result",
    "Stream",
    "StreamError",
    "StreamStats",
    "Token",
    "TokenError",
    "Word",
    "audio_seconds",
    "load_audio",
    "read_blocks",
    "write_bundle",
]
