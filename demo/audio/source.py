"""What the demo hears from: a microphone or a file, read in the same way."""

from __future__ import annotations

from typing import Protocol

from demo.events import Block, Notice
from edge.runtime import EdgeError

Item = Block | Notice


class MicrophoneError(EdgeError, RuntimeError):
    """No usable microphone; the message says what is missing and what to do."""


class Source(Protocol):
    """Audio that is pulled, a block at a time, by one thread."""

    @property
    def name(self) -> str:
        """For people: the file's name, or the microphone that is used now."""

    @property
    def rate(self) -> int:
        """Hz. Only a microphone that was replaced by another may change it: ``Block.rate`` is what counts."""

    @property
    def live(self) -> bool:
        """Whether it is a microphone."""

    @property
    def seconds(self) -> float | None:
        """Length, where it has one."""

    @property
    def ended(self) -> bool:
        """Whether ``read`` will never return another item."""

    def read(self, timeout_s: float) -> Item | None:
        """The next block, or something to tell the user; None when there is nothing within ``timeout_s``."""

    def close(self) -> None:
        """No more blocks. Returns within two seconds whatever the device does; may be called twice."""
