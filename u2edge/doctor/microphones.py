"""The process that touches PortAudio: lists microphones and listens to the default one.

Sick streams hang on ``stop()`` (an unplugged device, a stalled clock), so this process only ever aborts, and
its parent ends it when it takes too long.
"""

from __future__ import annotations

import queue
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.audio.capture import CHANNELS, FRONT_DOOR
from edge.runtime.channels import ChannelMixer
from edge.system.child import say, serve

RATES = (8000, 16000, 22050, 32000, 44100, 48000, 96000)  # Hz, asked of every microphone
START_S = 4.0  # seconds a microphone may take to deliver its first block (PulseAudio takes about 2)


def _probe(task: dict[str, Any]) -> None:
    """Answers ``import``, then ``devices``, then ``level`` or ``level_failed``."""
    try:
        import sounddevice
    except ModuleNotFoundError:
        say(missing="sounddevice")
        return
    except OSError as error:  # the wheel for Linux does not bring the library
        say(missing="portaudio", reason=str(error))
        return
    say(portaudio=sounddevice.get_portaudio_version()[1])
    hosts = [host["name"] for host in sounddevice.query_hostapis()]
    default = sounddevice.default.device[0]
    devices = []
    for index, device in enumerate(sounddevice.query_devices()):
        if device["max_input_channels"] < 1:
            continue
        devices.append(
            {
                "index": index,
                "name": device["name"],
                "host": hosts[device["hostapi"]],
                "channels": device["max_input_channels"],
                "default_rate": int(device["default_samplerate"]),
                "default": index == default,
                "rates": [],
            }
        )
    say(devices=devices)
    # Asking for rates opens the device, which is slow or impossible for some: each answer counts.
    for found in devices:
        found["rates"] = [rate for rate in RATES if _accepts(sounddevice, found["index"], rate)]
        say(devices=devices)
    if devices and task.get("listen_s"):
        _listen(sounddevice, float(task["listen_s"]))


def _accepts(sounddevice: Any, index: int, rate: int) -> bool:
    try:
        sounddevice.check_input_settings(device=index, channels=1, dtype="float32", samplerate=rate)
    except (sounddevice.PortAudioError, ValueError):
        return False
    return True


def _listen(sounddevice: Any, seconds: float) -> None:
    """The level of the default microphone over ``seconds``, at its own rate."""
    blocks: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()

    def receive(samples: NDArray[np.float32], frames: int, clock: Any, status: Any) -> None:
        blocks.put(samples.copy())

    try:
        info = sounddevice.query_devices(None, "input")
        rate = int(info["default_samplerate"])
        channels = int(info["max_input_channels"])
        channels = 2 if channels >= FRONT_DOOR else min(CHANNELS, channels)
        stream = sounddevice.InputStream(
            samplerate=rate, channels=channels, dtype="float32", latency="low", blocksize=rate // 20, callback=receive
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        say(level_failed=str(error).strip().splitlines()[0])
        return
    mixer = ChannelMixer(rate)  # a microphone may be on any channel
    heard, total, patience = [], 0, time.monotonic() + START_S
    while total < seconds * rate:
        try:
            heard.append(mixer.accept(blocks.get(timeout=max(0.01, patience - time.monotonic()))))
        except queue.Empty:
            break
        total += len(heard[-1])
        patience = time.monotonic() + seconds + 1.0
    if not heard:
        say(level_failed=f"{info['name']} delivered no sound for {START_S:g} s")
    else:
        say(level=level(np.concatenate(heard)), level_device=info["name"], level_rate=rate)
    stream.abort()


def level(samples: NDArray[np.float32]) -> dict[str, float | int | None]:
    """Peak and RMS in dB relative to full scale (1.0), None for digital silence; samples at full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return {
        "samples": len(samples),
        "peak_dbfs": round(20 * float(np.log10(peak)), 1) if peak > 0 else None,
        "rms_dbfs": round(20 * float(np.log10(rms)), 1) if rms > 0 else None,
        "clipped": int(np.count_nonzero(np.abs(samples) >= 0.999)),
    }


if __name__ == "__main__":
    serve(_probe)
