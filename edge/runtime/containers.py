"""Audio files as recorders and pipes leave them: headers that say too little, and several streams joined.

libsndfile believes headers. ``streams`` finds where each stream of a file begins and ends and which sizes in its header
are wrong, and gives libsndfile views of the file in which they are right. Nothing is written or copied.
"""

from __future__ import annotations

import io
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_UNTIL_END = 0xFFFFFFFF  # a size that libsndfile reads as "until the file ends"
_FLAC_UNKNOWN = (1 << 36) - 1  # samples; more than any file has, so that decoding ends where the frames end
_MAX_STREAMS = 10_000
_MP3_BITRATES = {  # kbit/s of layer III, by version 1 or not
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class Stream:
    """One stream of a file: bytes ``start`` to ``end``, with ``patches`` (offset in the file, bytes) over them, and
    ``tail`` after them."""

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    samples: int | None = None  # per channel, that the header announces; None: what libsndfile counts, times ...
    tail: bytes = b""
    announced: float = 1.0  # ... this: above 1 where the file ends before the samples it announces


class View(io.RawIOBase):
    """A stream as a file of its own, for libsndfile."""

    def __init__(self, path: Path, stream: Stream) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._stream, self._at = stream, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._stream.end - self._stream.start + len(self._stream.tail)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        begin = self._stream.start + self._at
        size = max(0, min(len(buffer), self._stream.end - begin))
        self._file.seek(begin)
        data = bytearray(self._file.read(size))
        for offset, patch in self._stream.patches:
            for i, byte in enumerate(patch):
                if 0 <= offset + i - begin < len(data):
                    data[offset + i - begin] = byte
        after = begin + len(data) - self._stream.end
        data += self._stream.tail[max(0, after) : max(0, after + len(buffer) - len(data))] if after >= 0 else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def streams(path: Path) -> list[Stream]:
    """The streams of an audio file, in order; one that covers all of it where nothing is known of the format."""
    size = path.stat().st_size
    whole = [Stream(0, size)]
    if not size:
        return whole
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = data[:12]
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _chunked(data, "<", b"RIFF", b"data")
        if head[:4] == b"RF64" and head[8:12] == b"WAVE":
            return _rf64(data) or whole
        if head[:4] == b"caff":
            return _caf(data) or whole
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _chunked(data, ">", b"FORM", b"SSND")
        if head[:4] == b".snd":
            return _au(data)
        if head[:4] == b"fLaC" or (head[:3] == b"ID3" and data.find(b"fLaC", 0, 1 << 20) >= 0):
            return _flac(data) or whole
        if head[:4] == b"OggS":
            return _ogg(data) or whole
        if head[:3] == b"ID3" or (head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
            return _mp3(data) or whole
    return whole


def _chunked(data: mmap.mmap, order: str, form: bytes, wanted: bytes) -> list[Stream]:
    """RIFF and AIFF: the samples are a chunk with a size; a recorder that died has left it at 0, or too small."""
    found: list[Stream] = []
    start = 0
    while start < len(data) and len(found) < _MAX_STREAMS:
        at, stream, after = start + 12, Stream(start, len(data)), len(data)
        while at + 8 <= len(data):
            name, (size,) = data[at : at + 4], struct.unpack(order + "I", data[at + 4 : at + 8])
            begin, end = at + 8, at + 8 + size + size % 2
            if name != wanted:
                at = end
                continue
            if end >= len(data):  # libsndfile takes what is there
                if size != _UNTIL_END and begin < len(data) and begin + size > len(data):
                    stream = Stream(start, len(data), announced=size / (len(data) - begin))
                break
            if data[end : end + 4] == form and data[end + 8 : end + 12] in (b"WAVE", b"AIFF", b"AIFC"):
                stream, after = Stream(start, end), end
            elif not _chunks_follow(data, end, order) and len(data) - end > 8:
                left = min(len(data) - begin, _UNTIL_END - 1)
                stream = Stream(start, len(data), ((at + 4, struct.pack(order + "I", left)),))
            break
        found.append(stream)
        start = after
    return found


def _rf64(data: mmap.mmap) -> list[Stream]:
    """WAV beyond 4 GB: the size of the samples is in the chunk ``ds64`` (EBU Tech 3306)."""
    if data[12:16] != b"ds64":
        return []
    at = 12
    while at + 8 <= len(data) and data[at : at + 4] != b"data":
        (size,) = struct.unpack("<I", data[at + 4 : at + 8])
        at += 8 + size + size % 2
    (said,) = struct.unpack("<Q", data[28:36])
    begin = at + 8
    if begin >= len(data) or begin + said + said % 2 >= len(data) or _chunks_follow(data, begin + said, "<"):
        return []
    return [Stream(0, len(data), ((28, struct.pack("<Q", len(data) - begin)),))]


def _caf(data: mmap.mmap) -> list[Stream]:
    """Apple's format: chunks with sizes of 64 bits; that of the samples may be -1, "until the end"."""
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">q", data[at + 4 : at + 12])
        end = at + 12 + size
        if data[at : at + 4] != b"data":
            if size < 0 or end <= at:
                return []
            at = end
            continue
        known = (b"info", b"pakt", b"free", b"uuid", b"strg", b"mark", b"ovvw", b"peak", b"edct", b"umid", b"regn")
        left = len(data) - at - 12
        if size == left or left <= 0 or (0 <= end < len(data) and data[end : end + 4] in known):
            return []
        announced = size / left if size > left else 1.0  # libsndfile refuses a file that was cut, and -1
        return [Stream(0, len(data), ((at + 4, struct.pack(">q", left)),), announced=announced)]
    return []


def _chunks_follow(data: mmap.mmap, at: int, order: str) -> bool:
    """Whether proper chunks, an ID3 tag or nothing but padding fill the file from ``at`` on."""
    if data[at : at + 3] == b"TAG" and len(data) - at <= 128:
        return True
    first = True
    while at + 8 <= len(data):
        name = data[at : at + 4]
        (size,) = struct.unpack(order + "I", data[at + 4 : at + 8])
        if not all(32 <= byte < 127 for byte in name) or at + 8 + size > len(data) + 1:
            return not first and name == b"\0\0\0\0"
        first = False
        at += 8 + size + size % 2
    return True


def _au(data: mmap.mmap) -> list[Stream]:
    """Sun's format: a size that may be unknown (all ones) or too small; another header may follow the samples."""
    found: list[Stream] = []
    start = 0
    while start < len(data) and len(found) < _MAX_STREAMS:
        offset, size = struct.unpack(">II", data[start + 4 : start + 12].ljust(8, b"\0"))
        end = start + offset + size
        if size not in (0, _UNTIL_END) and end < len(data) and data[end : end + 4] == b".snd":
            found.append(Stream(start, end))
            start = end
            continue
        found.append(Stream(start, len(data), ((start + 8, struct.pack(">I", _UNTIL_END)),)))
        break
    return found


def _flac(data: mmap.mmap) -> list[Stream]:
    """Each stream begins with its marker and STREAMINFO, whose number of samples may be 0 (a pipe) or wrong."""
    starts: list[int] = []
    at = data.find(b"fLaC")
    while at >= 0 and len(starts) < _MAX_STREAMS:
        if data[at + 4] & 0x7F == 0 and data[at + 5 : at + 8] == b"\0\0\x22":
            starts.append(at)
        at = data.find(b"fLaC", at + 4)
    found = []
    for start, end in zip(starts, [*starts[1:], len(data)]):
        place = start + 8 + 13  # 4 bits and 4 bytes
        high = data[place]
        said = ((high & 0x0F) << 32) | int(struct.unpack(">I", data[place + 1 : place + 5])[0])
        patch = bytes([(high & 0xF0) | (_FLAC_UNKNOWN >> 32)]) + struct.pack(">I", _FLAC_UNKNOWN & 0xFFFFFFFF)
        found.append(Stream(start, end, ((place, patch),), said))
    return found


def _ogg(data: mmap.mmap) -> list[Stream]:
    """A chain: a page that begins a stream, after pages that do not, begins another link."""
    starts, at, inside = [0], 0, False
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        if data[at + 5] & 2:
            if inside:
                starts.append(at)
            inside = False
        else:
            inside = True
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        if end > len(data):
            last = Stream(starts[-1], at, tail=_whole_packets(data[at:]))
            return [*(Stream(a, b) for a, b in zip(starts, starts[1:])), last]
        at = end
    return [Stream(start, end) for start, end in zip(starts, [*starts[1:], len(data)])]


def _whole_packets(page: bytes) -> bytes:
    """A page that was cut, with the packets that are whole; empty when there are none (RFC 3533, section 6)."""
    count = page[26]
    lacing, sound = page[27 : 27 + count], page[27 + count :]
    kept = size = total = 0
    for i, length in enumerate(lacing):
        total += length
        if total > len(sound):
            break
        if length < 255:  # a packet ends here
            kept, size = i + 1, total
    if not kept:
        return b""
    flags = page[5] & ~4  # not the last page of the stream, as far as anybody knows
    whole = page[:5] + bytes([flags]) + page[6:22] + bytes(4) + bytes([kept]) + lacing[:kept] + sound[:size]
    return whole[:22] + struct.pack("<I", _ogg_checksum(whole)) + whole[26:]


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7, neither reflected nor inverted."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


def _mp3(data: mmap.mmap) -> list[Stream]:
    """A first frame may announce how many frames follow, and libsndfile reads no more: correct it where more do."""
    at = 0
    if data[:3] == b"ID3":
        at = 10 + sum((data[6 + i] & 0x7F) << (7 * (3 - i)) for i in range(4))
    while at < len(data) - 4 and not _mp3_frame(data, at):
        at = data.find(b"\xff", at + 1)
        if at < 0:
            return []
    first = _mp3_frame(data, at)
    tag = next((i for name in (b"Xing", b"Info") if (i := data.find(name, at, at + 64)) >= 0), -1)
    if tag < 0 or not first or not data[tag + 7] & 1:
        return []
    said = int(struct.unpack(">I", data[tag + 8 : tag + 12])[0])
    frames, place = -1, at  # without the first, which has no sound
    while place < len(data) - 4:
        length = _mp3_frame(data, place)
        if not length:
            place = _next_mp3(data, place)
            continue
        frames, place = frames + 1, place + length
    samples = 1152 if data[at + 1] & 0x08 else 576
    if frames <= said + 1:
        return [Stream(0, len(data), (), said * samples)]
    patches = [(tag + 8, struct.pack(">I", frames))]
    if data[tag + 7] & 2:
        patches.append((tag + 12, struct.pack(">I", len(data) - at)))
    return [Stream(0, len(data), tuple(patches))]


def _next_mp3(data: mmap.mmap, at: int) -> int:
    """Where the next two frames in a row begin, after tags or junk; the end of the file when they do not."""
    while (at := data.find(b"\xff", at + 1)) >= 0:
        length = _mp3_frame(data, at)
        if length and (at + length >= len(data) - 4 or _mp3_frame(data, at + length)):
            return at
    return len(data)


def _mp3_frame(data: mmap.mmap, at: int) -> int:
    """Bytes of the layer III frame at ``at``, 0 when there is none (ISO 11172-3, 2.4.1.3)."""
    if at + 4 > len(data):
        return 0
    a, b, c = data[at], data[at + 1], data[at + 2]
    version, bitrate, rate = b >> 3 & 3, c >> 4, c >> 2 & 3
    if a != 0xFF or b & 0xE0 != 0xE0 or b >> 1 & 3 != 1 or version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    factor = 144 if version == 3 else 72
    return factor * 1000 * _MP3_BITRATES[version == 3][bitrate] // _MP3_RATES[version][rate] + (c >> 1 & 1)
