"""What a user can choose in the demo, while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime import DecodeOptions, EngineConfig

CHUNKS_MS = (160, 320, 640, 960, 1280)  # offered; a bundle may allow fewer


@dataclass(frozen=True)
class Settings:
    """Bundles, engine and decoding. A changed one is handed to ``Session.apply`` as a whole."""

    bundle: Path
    compare: Path | None = None
    """A second bundle that hears the same audio."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    chunk_ms: float | None = None
    left_chunks: int = 16
    rescoring: bool = True
    reencode: bool | None = None
    channel: int | None = None
    """Of the microphone or the files, from 1; None: all, or the live one."""

    @property
    def bundles(self) -> tuple[Path, ...]:
        return (self.bundle,) if self.compare is None else (self.bundle, self.compare)

    def decode(self) -> DecodeOptions:
        """What ``Recognizer.stream`` takes."""
        return DecodeOptions(
            chunk_ms=self.chunk_ms, left_chunks=self.left_chunks, rescoring=self.rescoring, reencode=self.reencode
        )
