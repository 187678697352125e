"""One PortAudio input stream, from opening to closing; and the clock that says when its samples existed."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.audio.devices import NO_MICROPHONE, Input, choose, scan
from demo.audio.portaudio import reason_of, rescan
from demo.audio.source import MicrophoneError
from edge.runtime.channels import ChannelMixer

BLOCK_S = 0.02  # seconds per callback
_PERIODS = 32  # of the driver's buffer; many sound cards can do no more
_WINDOW_S = 30.0  # over which the least delay is looked for; short enough that the drift of a sound card is nothing
_RATES = (48000, 44100, 16000, 32000, 22050, 8000)  # Hz, when a device refuses its own
CHANNELS = 8  # opened at most, unless a higher one is asked for
FRONT_DOOR = 32  # channels that PulseAudio and PipeWire claim at least
_INVALID_RATE, _INVALID_CHANNELS, _UNAVAILABLE = -9997, -9998, -9985  # PortAudio's error codes

OnSamples = Callable[["Capture", NDArray[np.float32], float, float], None]


class Missing(MicrophoneError):
    """The device that is wanted is not there."""


class SampleClock:
    """When samples existed, judged by how many arrived when.

    Callbacks come late and in bursts, but never before their samples. So the least delay seen in the last half minute
    is the delay of the device, and what is above it is lateness: of this callback, of a backlog, or sound that was
    lost. The device's own constant delay (tens of milliseconds) cannot be seen this way.
    """

    def __init__(self, rate: int) -> None:
        self.late_s = 0.0  # of the last callback
        self._rate = rate
        self._samples = 0.0
        self._least = [np.inf, np.inf]  # of this window and the one before
        self._until = 0.0

    def arrived(self, samples: int, now: float) -> float:
        """Count ``samples`` that arrived ``now`` (s); returns when the last of them existed (s, the same clock)."""
        self._samples += samples
        delay = now - self._samples / self._rate
        if now >= self._until:
            self._least = [np.inf, self._least[0]]
            self._until = now + _WINDOW_S
        self._least[0] = min(self._least[0], delay)
        self.late_s = delay - min(self._least)
        return now - self.late_s

    def lost(self, samples: int, now: float) -> float:
        """The device dropped sound before ``samples`` that arrive ``now``: seconds it must have been, by lateness."""
        delay = now - (self._samples + samples) / self._rate
        if not self._samples:  # nobody misses what was before the beginning
            return 0.0
        seconds = max(0.001, delay - min(self._least))
        self._samples += seconds * self._rate
        return seconds


class Capture:
    """An open stream. All methods but the properties are for PortAudio's thread (see portaudio.py).

    Args:
        receive: called with (this, mono samples (n,) float32 in -1..1, when the last of them existed by
            ``time.monotonic()``, seconds known to be lost before them), on a thread of PortAudio's.
        rates: Hz, tried in this order.
        channel: of the device, from 1, that is heard alone; None: as ``edge.runtime.channels`` decides.

    Raises:
        MicrophoneError: the device cannot be opened.
    """

    def __init__(
        self, sounddevice: Any, device: Input, receive: OnSamples, rates: Sequence[int], channel: int | None = None
    ) -> None:
        if channel is not None and not 1 <= channel <= device.channels:
            raise MicrophoneError(f"{device.name}: expected a channel of 1 to {device.channels}, found {channel}")
        self._channel = channel
        self.device = device
        self.name, self.label = device.name, device.shown
        self.finished = False  # the system has ended the stream
        self.blocks = 0
        self.overflows = 0
        self.broken = 0  # samples that were no numbers
        self.last = self.opened = time.monotonic()
        self._receive = receive
        self._closing = False
        self._stream, self.rate, self.channels = self._open(sounddevice, rates)
        self.clock = SampleClock(self.rate)
        self._mixer = ChannelMixer(self.rate, channel)
        try:
            self.last = self.opened = time.monotonic()
            self._stream.start()
        except sounddevice.PortAudioError as error:
            self._stream.close()
            raise _refused(device, error) from None

    def _open(self, sounddevice: Any, rates: Sequence[int]) -> tuple[Any, int, int]:
        """The device's own rate and its first channels, if it can; else what it can."""
        failure: Exception | None = None
        for channels in _channel_counts(self.device, self._channel):
            for rate in dict.fromkeys((*rates, self.device.rate, *_RATES)):
                try:
                    stream = sounddevice.InputStream(
                        device=self.device.index,
                        samplerate=rate,
                        channels=channels,
                        dtype="float32",
                        latency=_latency(sounddevice),
                        blocksize=round(rate * BLOCK_S),
                        callback=self._callback,
                        finished_callback=self._on_finished,
                    )
                    return stream, rate, channels
                except (sounddevice.PortAudioError, ValueError) as error:
                    failure = error
                    code = error.args[1] if len(error.args) > 1 else 0
                    if code == _INVALID_CHANNELS:
                        break
                    if code != _INVALID_RATE:
                        raise _refused(self.device, error) from None
        raise _refused(self.device, failure or ValueError("no rate fits"))

    def _callback(self, samples: NDArray[np.float32], frames: int, clock: Any, status: Any) -> None:
        if self._closing:
            return
        now = time.monotonic()
        block = samples.copy()
        if not np.isfinite(block).all():
            self.broken += int(np.count_nonzero(~np.isfinite(block)))
            np.nan_to_num(block, copy=False, posinf=0.0, neginf=0.0)
        np.clip(block, -1.0, 1.0, out=block)
        mono = self._mixer.accept(block)
        lost_s = 0.0
        if status.input_overflow:
            self.overflows += 1
            lost_s = self.clock.lost(frames, now)
        captured = self.clock.arrived(frames, now)
        self.last = now
        self.blocks += 1
        self._receive(self, mono, captured, lost_s)

    @property
    def channel_note(self) -> str:
        """One sentence when one of several channels is heard alone, else ""."""
        return self._mixer.told()

    def _on_finished(self) -> None:
        self.finished = True

    def release(self) -> None:
        """Close the stream. ``abort``, because ``stop`` waits for samples that a sick device never delivers."""
        self._closing = True
        self._stream.abort()
        self._stream.close()


def open_capture(
    sounddevice: Any,
    wanted: str | None,
    receive: OnSamples,
    rates: Sequence[int] = (),
    attempt: int = 0,
    channel: int | None = None,
) -> Capture:
    """Look for devices anew and open the wanted one, or when that is None the default one or else any other.

    Args:
        channel: see Capture.
        attempt: counts the attempts that opened something silent: each second one begins with another device.

    Raises:
        Missing: there is none.
        MicrophoneError: none can be opened; the message is about the first.
    """
    try:
        rescan(sounddevice)
        found, default = scan(sounddevice)
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(
            f"PortAudio does not start ({reason_of(error)}); restart the sound server, then try again"
        ) from None
    candidates = choose(found, default, wanted)
    if not candidates:
        raise Missing(NO_MICROPHONE if wanted is None else f"{wanted}: not plugged in")
    if wanted is None and attempt % 2 and len(candidates) > 1:
        turn = 1 + attempt // 2 % (len(candidates) - 1)
        candidates = [*candidates[turn:], *candidates[:turn]]
    failure: MicrophoneError | None = None
    for device in candidates:
        try:
            return Capture(sounddevice, device, receive, rates, channel)
        except MicrophoneError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _channel_counts(device: Input, channel: int | None) -> list[int]:
    """How many channels to ask for, best first: all up to eight, as a microphone may be on any of them. A server's
    front door claims dozens and mixes whatever there is into as many as are asked for: two."""
    first = device.channels if device.channels <= CHANNELS else 2 if device.channels >= FRONT_DOOR else CHANNELS
    counts = [first, 1, min(2, device.channels), device.channels]
    least = channel or 1
    return list(dict.fromkeys(count for count in (*([channel] if channel else []), *counts) if count >= least))


def _latency(sounddevice: Any) -> float | str:
    """What to ask PortAudio for: a buffer that forgives late callbacks, and samples that come early all the same.

    "low" buffers some 40 ms, and on a busy computer Python is later than that now and then, so sound would be lost.
    ALSA is asked for many short periods: a buffer of 0.64 s that is emptied every 20 ms. Where that cannot be said
    PortAudio takes four periods, and 0.2 s costs 20 ms of delay. Other systems: not measured, PortAudio's own choice.
    """
    if sys.platform != "linux":
        return "low"
    try:
        ctypes.CDLL(sounddevice._libname).PaAlsa_SetNumPeriods(_PERIODS)
    except (OSError, AttributeError):  # a PortAudio without ALSA
        return 0.2
    return _PERIODS * BLOCK_S


def _refused(device: Input, error: Exception) -> MicrophoneError:
    reason = reason_of(error)
    if len(error.args) > 1 and error.args[1] == _UNAVAILABLE:
        reason += "; another program may hold it: close that, or choose another microphone"
    return MicrophoneError(f"{device.name}: cannot be opened ({reason})")
