"""Feature frames to encoder windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.runtime.manifest import StreamOptions

Frames = NDArray[np.float32]


class FrameChunker:
    """Cuts a stream of feature frames into overlapping windows, as WeNet's ``forward_chunk_by_chunk`` does.

    A window of ``chunk`` encoder frames spans (chunk - 1) * subsampling + right_context + 1 feature frames and
    the next one starts chunk * subsampling later. What a window shares with the next stays here, so a new
    utterance goes on exactly where the encoder stopped and no audio is lost. (WeNet's runtime drops the shared
    frames at an endpoint: 30 ms with conv2d.)

    Full context is the same with one long chunk: ``final()`` gives the whole utterance, and only an utterance
    longer than ``chunk`` is cut.
    """

    def __init__(self, stream: StreamOptions, chunk: int, mel: int) -> None:
        self._stream = stream
        self._least = stream.window(1)  # feature frames of the shortest window
        self.rechunk(chunk)
        self._pending: list[Frames] = []
        self._buffer: Frames = np.zeros((0, mel), np.float32)
        self._buffered = 0
        self._position = self._covered = 0

    def rechunk(self, chunk: int) -> None:
        """Cut windows of ``chunk`` encoder frames from here on. The next one starts where it would have started, so
        every encoder frame is computed once, whatever the sequence of chunks."""
        self.window = self._stream.window(chunk)  # feature frames
        self.stride = chunk * self._stream.subsampling  # feature frames

    @property
    def position(self) -> int:
        """Feature frame of the stream where the next window starts."""
        return self._position

    @property
    def covered(self) -> int:
        """Feature frames of the stream up to the end of the last window."""
        return self._covered

    @property
    def buffered(self) -> int:
        """Feature frames held."""
        return self._buffered

    def push(self, frames: Frames) -> None:
        """Add feature frames (n, mel)."""
        if len(frames):
            self._pending.append(frames)
            self._buffered += len(frames)

    def next(self) -> Frames | None:
        """The next full window (window, mel), or None until there are enough frames."""
        if self._buffered < self.window:
            return None
        window = self._join()[: self.window]
        self._covered = self._position + self.window
        self._advance(self.stride)
        return window

    def final(self) -> Frames | None:
        """The last, shorter window of the stream, or None when too little is left for one encoder frame.

        Call after ``next()`` has returned None; it empties the chunker.
        """
        window = self._join() if self._buffered >= self._least else None
        if window is not None:
            self._covered = self._position + len(window)
        self._advance(self._buffered)
        return window

    def _join(self) -> Frames:
        if self._pending:
            self._buffer = np.concatenate([self._buffer, *self._pending])
            self._pending.clear()
        return self._buffer

    def _advance(self, frames: int) -> None:
        # A view of the tail would keep the whole array alive.
        self._buffer = self._join()[frames:].copy()
        self._buffered -= frames
        self._position += frames
