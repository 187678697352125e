from __future__ import annotations

import numpy as np
import pytest

from edge.runtime.chunker import FrameChunker, Frames
from edge.runtime.manifest import StreamOptions

CONV2D = {4: 6, 6: 10, 8: 14}  # subsampling -> right context


def stream(rate: int) -> StreamOptions:
    return StreamOptions(subsampling=rate, right_context=CONV2D[rate], streaming=True)


def numbered(count: int) -> Frames:
    """(count, 1) frames that hold their own index."""
    return np.arange(count, dtype=np.float32)[:, None]


def schedule(total: int, chunk: int, rate: int) -> list[tuple[int, int]]:
    """(start, end) of WeNet's windows: range(0, num_frames - context + 1, stride), cut at the end of the features."""
    context = CONV2D[rate] + 1
    return [
        (start, min(start + (chunk - 1) * rate + context, total))
        for start in range(0, total - context + 1, chunk * rate)
    ]


@pytest.mark.parametrize("rate", [4, 6, 8])
@pytest.mark.parametrize("chunk", [1, 2, 8, 16])
def test_windows_are_wenets_schedule(rate: int, chunk: int) -> None:
    rng = np.random.default_rng(chunk * rate)
    lengths = sorted({*range(40), 66, 67, 68, 130, 131, 132, 203, 500, *rng.integers(100, 900, 5).tolist()})
    for total in lengths:
        chunker, got, at = FrameChunker(stream(rate), chunk, 1), [], 0
        frames = numbered(total)
        while at < total:
            size = int(rng.integers(1, 50))
            chunker.push(frames[at : at + size])
            at += size
            while (window := chunker.next()) is not None:
                got.append(window)
                assert chunker.covered == window[-1, 0] + 1
        assert chunker.buffered < chunker.window, "nothing is held longer than needed"
        if (window := chunker.final()) is not None:
            got.append(window)
            assert chunker.covered == total
        expected = schedule(total, chunk, rate)
        assert [(int(w[0, 0]), int(w[-1, 0]) + 1) for w in got] == expected
        assert all(np.array_equal(w, frames[a:b]) for w, (a, b) in zip(got, expected))
        assert chunker.position == total and chunker.buffered == 0


@pytest.mark.parametrize("rate", [4, 6, 8])
def test_encoder_frames_are_the_convolutions(rate: int) -> None:
    def convolutions(frames: int) -> int:
        def half(n: int) -> int:
            return (n - 1) // 2

        if frames < CONV2D[rate] + 1:
            return 0
        return {4: half(half(frames)), 6: (half(frames) - 2) // 3, 8: half(half(half(frames)))}[rate]

    options = stream(rate)
    assert [options.encoder_frames(n) for n in range(400)] == [convolutions(n) for n in range(400)]
    for chunk in (1, 7, 16):
        assert options.encoder_frames(FrameChunker(options, chunk, 1).window) == chunk


def test_a_long_chunk_is_full_context() -> None:
    chunker = FrameChunker(stream(4), 100, 1)
    chunker.push(numbered(300))
    assert chunker.next() is None
    window = chunker.final()
    assert window is not None and window.shape == (300, 1)


def test_full_context_is_cut_and_nothing_is_lost() -> None:
    options = stream(4)
    chunker = FrameChunker(options, 100, 1)
    chunker.push(numbered(1000))
    windows = []
    while (window := chunker.next()) is not None:
        windows.append(window)
    last = chunker.final()
    assert last is not None
    windows.append(last)
    assert [options.encoder_frames(len(w)) for w in windows] == [100, 100, 49]
    assert [int(w[0, 0]) for w in windows] == [0, 400, 800], "each starts where the last one's encoder frames ended"


def test_windows_do_not_change_later() -> None:
    chunker = FrameChunker(stream(4), 4, 1)
    chunker.push(numbered(40))
    first = chunker.next()
    assert first is not None
    before = first.copy()
    chunker.push(numbered(100) + 1000)
    while chunker.next() is not None:
        pass
    assert np.array_equal(first, before)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [4, 6, 8])
def test_every_feature_frame_is_consumed_once_whatever_the_schedule(rate: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    options, context = stream(rate), CONV2D[rate]
    total = int(rng.integers(200, 1500))
    frames = numbered(total)
    chunk = int(rng.integers(1, 33))
    chunker, at, computed = FrameChunker(options, chunk, 1), 0, 0  # computed: encoder frames

    def read(window: Frames, count: int) -> int:
        """``count`` encoder frames from frame ``computed`` on, if ``window`` is where their convolutions read."""
        size = (count - 1) * rate + context + 1
        assert np.array_equal(window[:size], frames[computed * rate : computed * rate + size])
        return count

    while at < total:
        if rng.random() < 0.3:  # in the middle of a chunk, several times in a row, to larger and to smaller ones
            chunk = int(rng.integers(1, 33))
            before = chunker.position, chunker.covered, chunker.buffered
            chunker.rechunk(chunk)
            assert (chunker.position, chunker.covered, chunker.buffered) == before
        size = int(rng.integers(0, 90))
        chunker.push(frames[at : at + size])
        at += size
        while (window := chunker.next()) is not None:
            assert len(window) == (chunk - 1) * rate + context + 1
            computed += read(window, chunk)
            assert chunker.position == computed * rate
    if (window := chunker.final()) is not None:
        computed += read(window, options.encoder_frames(len(window)))
    assert computed == options.encoder_frames(total), "the encoder frames of one pass, no more and no fewer"
    assert chunker.position == total and chunker.buffered == 0
