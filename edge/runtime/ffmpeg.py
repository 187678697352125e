"""What libsndfile cannot read (m4a, webm, video), through the program ``ffmpeg`` where it is installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.errors import AudioError

_HEADER = 1 << 16  # bytes within which the samples begin


def ffmpeg_blocks(path: Path, seconds: float) -> Iterator[tuple[Any, int]] | None:
    """Blocks as ``edge.runtime.audio_files.read_blocks`` yields them, or None without ffmpeg.

    Raises, while it is read:
        AudioError: ffmpeg cannot read it either, or stops in the middle.
    """
    program = shutil.which("ffmpeg")
    return None if program is None else _blocks(program, path, seconds)


def _blocks(program: str, path: Path, seconds: float) -> Iterator[tuple[Any, int]]:
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{path.resolve()}"]
    command += ["-vn", "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        ended = False
        try:
            header = _header(process.stdout)
            if header is not None:
                rate, channels = header
                size = max(1, round(seconds * rate)) * 4 * channels
                while data := process.stdout.read(size):
                    frames = len(data) // (4 * channels)
                    yield np.frombuffer(data, "<f4", frames * channels).reshape(frames, channels), rate
            ended = True
        finally:
            if not ended:
                process.kill()
            process.stdout.close()
            code = process.wait()
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        if header is None or code:
            why = lines[-1][:200] if lines else f"exit code {code}"
            raise AudioError(f"{path}: expected audio; libsndfile cannot read it, and ffmpeg says: {why}")


def _header(pipe: Any) -> tuple[int, int] | None:
    """Sample rate and channels of a WAV that is piped, read up to its first sample; None when there is none."""
    read = pipe.read(12)
    if len(read) < 12 or read[:4] != b"RIFF" or read[8:12] != b"WAVE":
        return None
    found: tuple[int, int] | None = None
    total = 12
    while total < _HEADER:
        head = pipe.read(8)
        if len(head) < 8:
            return None
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return found
        body = pipe.read(size + size % 2)
        total += 8 + len(body)
        if name == b"fmt ":
            channels, rate = struct.unpack("<HI", body[2:8])
            found = rate, channels
    return None
