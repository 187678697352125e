"""Audio files in blocks, as recorders and pipes leave them: what decodes is delivered, what is wrong is said."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge.runtime.audio import Resampler, Samples, check_sample_rate, checked
from edge.runtime.channels import ChannelMixer
from edge.runtime.containers import Stream, View, streams
from edge.runtime.decoder_noise import quiet_decoder
from edge.runtime.errors import AudioError
from edge.runtime.ffmpeg import ffmpeg_blocks

_CONVERT = "convert it first: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
_DECODE_S = 10.0  # seconds read at a time where the caller does not care
_SHORT_S = 0.1  # seconds that a header may announce too many: encoders round up
_MP3_TAIL_S = 0.2  # and MP3 counts what its decoder leaves out at both ends
_EXACT_BYTES = 64 << 20  # of a compressed file whose length is counted rather than read from its header

Tell = Callable[[str], None]


class DamagedAudio(AudioError):
    """A file that ends in damage. What decoded before it was delivered."""


@dataclass(frozen=True)
class Clip:
    """A part of a recording: ``seconds`` from ``start_s`` on (None: to its end), of one ``channel`` (from 1) or all.

    Wherever a path of an audio file is taken, a clip is.
    """

    path: Path
    start_s: float = 0.0
    seconds: float | None = None
    channel: int | None = None

    def __str__(self) -> str:
        whole = not self.start_s and self.seconds is None and self.channel is None
        if whole:
            return str(self.path)
        end = "" if self.seconds is None else f"{self.start_s + self.seconds:g}"
        channel = "" if self.channel is None else f", channel {self.channel}"
        return f"{self.path} ({self.start_s:g}-{end} s{channel})"


Source = Path | str | Clip


def load_audio(path: Source) -> tuple[Samples, int]:
    """Read a whole audio file.

    Returns:
        Samples as float32 in [-1, 1], (n,) or (n, channels), and the sample rate in Hz.

    Raises:
        AudioError: missing, a directory, empty, not audio, no frames, damaged, or an absurd sample rate.
    """
    blocks = list(read_blocks(path, _DECODE_S))
    return np.concatenate([block for block, _ in blocks]), blocks[0][1]


def read_blocks(path: Source, seconds: float = 1.0, tell: Tell | None = None) -> Iterator[tuple[Samples, int]]:
    """Read an audio file ``seconds`` at a time, so that hours of audio need no more memory than one block.

    Sizes in headers are not believed where the file holds more, and joined streams follow each other. A file that
    libsndfile cannot read goes through ffmpeg where that is installed.

    Args:
        path: an audio file, or a :class:`Clip` of one.
        seconds: the length of a block.
        tell: called with one line when the file ends before its header says.

    Yields:
        (samples as in :func:`load_audio`, sample rate in Hz).

    Raises:
        AudioError: as :func:`load_audio`, when the first block is asked for.
        DamagedAudio: where the damage is; everything before it was yielded.
    """
    clip = path if isinstance(path, Clip) else Clip(Path(path))
    if not (math.isfinite(clip.start_s) and clip.start_s >= 0 and (clip.seconds is None or clip.seconds > 0)):
        raise AudioError(
            f"{clip.path}: expected a part of positive length, found {clip.start_s!r} and {clip.seconds!r}"
        )
    found = False
    for block, rate in _cut(_decoded(clip, seconds, tell), clip):
        found = True
        yield block, rate
    if not found:
        empty = (
            "none in this part; check its times" if clip.start_s else "a header and no samples; record or copy it again"
        )
        raise AudioError(f"{clip}: expected audio, found {empty}")


def audio_seconds(path: Source, exact: bool = True) -> float:
    """Length of what :func:`read_blocks` yields, in seconds.

    Args:
        path: an audio file, or a :class:`Clip` of one.
        exact: decode it to know; False believes the header of a large file.

    Raises:
        AudioError: as :func:`load_audio`; damage is where it ends.
    """
    total, clip = 0.0, path if isinstance(path, Clip) else Clip(Path(path))
    if not exact and clip.path.is_file() and clip.path.stat().st_size > _EXACT_BYTES and clip == Clip(clip.path):
        with contextlib.suppress(soundfile.SoundFileError), _open(clip.path, Stream(0, 0)) as file:
            if 0 < file.frames < 1 << 40:
                return float(file.frames / file.samplerate)
    try:
        for block, rate in read_blocks(path, _DECODE_S):
            total += len(block) / rate
    except DamagedAudio:
        if not total:
            raise
    return total


def _cut(blocks: Iterator[tuple[Samples, int, float]], clip: Clip) -> Iterator[tuple[Samples, int]]:
    """The part of ``clip``: blocks are (samples, rate, seconds before them)."""
    end = math.inf if clip.seconds is None else clip.start_s + clip.seconds
    for block, rate, at in blocks:
        first = max(0, round((clip.start_s - at) * rate))
        last = len(block) if end == math.inf else min(len(block), round((end - at) * rate))
        if clip.channel is not None:
            block = _channel(block, clip)
        if first < last:
            yield block[first:last], rate
        if last < len(block):
            break


def _channel(block: Samples, clip: Clip) -> Samples:
    channels = 1 if block.ndim == 1 else block.shape[1]
    if clip.channel is None or not 1 <= clip.channel <= channels:
        raise AudioError(f"{clip.path}: expected a channel of 1 to {channels}, found {clip.channel}")
    return block if block.ndim == 1 else np.ascontiguousarray(block[:, clip.channel - 1])


def _decoded(clip: Clip, seconds: float, tell: Tell | None) -> Iterator[tuple[Samples, int, float]]:
    path = clip.path
    _check_file(path)
    parts = streams(path)
    done, said, rate = 0.0, 0.0, 0
    for number, part in enumerate(parts):
        try:
            opened = _opened(path, part)
        except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which states no format
            if number:
                raise DamagedAudio(f"{path}: damaged after {done:.2f} s ({_reason(error)}); {_CONVERT}") from None
            other = ffmpeg_blocks(path, seconds)
            if other is None:
                raise AudioError(
                    f"{path}: expected WAV, FLAC, Ogg, Opus or MP3, found something else ({_reason(error)}); "
                    f"{_CONVERT} (with ffmpeg on PATH, u2edge does that itself)"
                ) from None
            for block, rate in other:
                yield block, check_sample_rate(rate, str(path)), done
                done += len(block) / rate
            return
        with opened as file:
            if number and file.samplerate != rate:
                raise DamagedAudio(
                    f"{path}: its stream {number + 1} has {file.samplerate} Hz and not {rate} Hz as before it, and "
                    f"is left out; {_CONVERT}"
                )
            rate = check_sample_rate(file.samplerate, str(path))
            announced = part.samples if part.samples is not None else part.announced * min(file.frames, 1 << 40)
            if number == 0 and len(parts) == 1:
                done = _skip(file, clip.start_s)
            for block in _blocks(file, max(1, round(seconds * rate)), path, done):
                yield block, rate, done
                done += len(block) / rate
            said += announced / rate
            slack = _SHORT_S if file.format != "MP3" else _MP3_TAIL_S
            if tell is None or clip.seconds is not None or number < len(parts) - 1:
                continue
            if part.tail:
                tell(f"{path}: ends after {done:.2f} s in a page that is not whole: it was cut")
            elif done < said - slack:
                tell(f"{path}: ends after {done:.2f} s of the {said:.2f} s that its header announces")


def _blocks(file: Any, frames: int, path: Path, began: float) -> Iterator[Samples]:
    """What decodes, also the beginning of a block in which damage is; then the damage."""
    shape = (frames,) if file.channels == 1 else (frames, file.channels)
    decoded = 0
    while True:
        block = np.full(shape, np.nan, np.float32)
        failure: Exception | None = None
        try:
            with quiet_decoder() if file.format == "MP3" else contextlib.nullcontext():
                count = len(file.read(out=block))
        except soundfile.SoundFileError as error:
            failure = error
            whole = np.isfinite(block.reshape(frames, -1)).all(axis=1)
            count = frames if whole.all() else int(np.argmin(whole))
        if count:
            decoded += count
            yield block[:count]
        if failure is not None:
            if "psf_fseek" in str(failure):  # libsndfile, at the end of a FLAC of unknown length
                return
            at = began + decoded / file.samplerate
            raise DamagedAudio(f"{path}: damaged after {at:.2f} s ({_reason(failure)}); {_CONVERT}")
        if count < frames:
            return


class _Sequential(soundfile.SoundFile):  # type: ignore[misc, unused-ignore]
    """Read from front to back: some codecs cannot seek, and soundfile seeks after every read where it can."""

    def seekable(self) -> bool:
        return False


def _open(path: Path, part: Stream) -> Any:
    """``part`` of the file; by its name where that is all of it and right, since libsndfile is then faster."""
    if part.patches or part.start or part.tail:
        return _Sequential(View(path, part))
    size = path.stat().st_size
    if part.end not in (0, size):
        return _Sequential(View(path, part))
    return _Sequential(os.fsencode(path) if os.name == "posix" else str(path))  # names need not be UTF-8


def _opened(path: Path, part: Stream) -> Any:
    with quiet_decoder():
        return _open(path, part)


def _skip(file: Any, seconds: float) -> float:
    """Move to ``seconds`` where the format can do it cheaply; returns where the file stands, in seconds."""
    frames = round(seconds * file.samplerate)
    if frames and file.format in ("WAV", "WAVEX", "AIFF", "AU") and file.subtype.startswith(("PCM", "FLOAT", "DOUBLE")):
        with contextlib.suppress(soundfile.SoundFileError):
            return float(file.seek(min(frames, file.frames)) / file.samplerate)
    return 0.0


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such audio file; check the path") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise AudioError(f"{path}: cannot read the audio file: {error.strerror}") from None
    if not path.is_file():
        raise AudioError(f"{path}: expected an audio file, found a directory or device; pass one file at a time")
    if status.st_size == 0:
        raise AudioError(f"{path}: expected audio, found an empty file (0 bytes); record or copy it again")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")


def read_resampled(path: Source, rate: int, longest_s: float = math.inf) -> tuple[Samples, float]:
    """A recording for a model: mono float32 (n,) at ``rate`` Hz, of its first ``longest_s`` seconds; and the seconds of
    the file that this is.

    Raises:
        AudioError: as :func:`read_blocks` and ``checked``; names the file.
    """
    resampler, mixer, parts, seconds = None, ChannelMixer(1), [], 0.0
    for samples, found in read_blocks(path, _DECODE_S):
        taken = samples if longest_s == math.inf else samples[: max(0, round((longest_s - seconds) * found))]
        if resampler is None:
            resampler, mixer = Resampler(found, rate), ChannelMixer(found)
        try:
            parts.append(resampler.accept(mixer.accept(checked(taken))))
        except AudioError as error:
            raise AudioError(f"{path}: {error}") from None
        seconds += len(taken) / found
        if seconds >= longest_s:
            break
    if resampler is not None:
        parts.append(resampler.finish())
    return np.concatenate([np.zeros(0, np.float32), *parts]), seconds
