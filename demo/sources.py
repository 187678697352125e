"""Where the demo's audio comes from: a microphone, or files at the pace of real time."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime import EdgeError, read_blocks

BLOCK_S = 0.05  # seconds of audio per block
START_S = 4.0  # seconds a microphone may take to deliver its first block (PulseAudio takes about 2)
SILENT_S = 1.5  # seconds without a block that mean a stalled or unplugged microphone


class MicrophoneError(EdgeError, RuntimeError):
    """No usable microphone; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Block:
    """Samples (n,) or (n, channels) at ``rate`` Hz; ``behind_s`` is how late they are handed over."""

    samples: NDArray[Any]
    rate: int
    behind_s: float = 0.0


def play(path: Path) -> Iterator[Block]:
    """Blocks of an audio file, each handed over when a microphone would have delivered it."""
    began, heard = time.monotonic(), 0.0
    for samples, rate in read_blocks(path, BLOCK_S):
        heard += len(samples) / rate
        wait = began + heard - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        yield Block(samples, rate, max(0.0, -wait))


class Microphone:
    """A sounddevice input at the device's own rate; iterate over it for blocks.

    Raises:
        MicrophoneError: no PortAudio, no such device, or a device that stops delivering.
    """

    def __init__(self, device: str | None = None) -> None:
        try:
            import sounddevice
        except ModuleNotFoundError:
            raise MicrophoneError("the microphone needs sounddevice; type: pip install 'u2edge[demo]'") from None
        except OSError:  # the wheel for Linux does not bring the library
            raise MicrophoneError("the microphone needs PortAudio; type: sudo apt install libportaudio2") from None
        selected: str | int | None = int(device) if device is not None and device.isdigit() else device
        self._blocks: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()
        try:
            info = sounddevice.query_devices(selected, "input")
            self.name, self.rate = str(info["name"]), int(info["default_samplerate"])
            self._stream = sounddevice.InputStream(
                samplerate=self.rate,
                device=selected,
                channels=1,
                dtype="float32",
                latency="low",
                blocksize=int(self.rate * BLOCK_S),
                callback=self._receive,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            known = ", ".join(f"{i} {d['name']}" for i, d in enumerate(_inputs(sounddevice))) or "none"
            raise MicrophoneError(f"no usable microphone ({reason}); inputs found: {known}") from None

    def _receive(self, samples: NDArray[np.float32], frames: int, clock: Any, status: Any) -> None:
        self._blocks.put(samples[:, 0].copy())

    def __iter__(self) -> Iterator[Block]:
        patience = START_S
        while True:
            try:
                samples = self._blocks.get(timeout=patience)
            except queue.Empty:
                raise MicrophoneError(
                    f"{self.name}: no sound for {patience:g} s; was it unplugged or suspended?"
                ) from None
            patience = SILENT_S
            yield Block(samples, self.rate, self._blocks.qsize() * BLOCK_S)

    def close(self) -> None:
        """Stop capturing. ``abort``, because ``stop`` hangs on a stalled device."""
        self._stream.abort()
        self._stream.close()


def _inputs(sounddevice: Any) -> list[dict[str, Any]]:
    try:
        return [d for d in sounddevice.query_devices() if d["max_input_channels"] > 0]
    except sounddevice.PortAudioError:
        return []
