"""The device that was asked for, among others of its name, by every way to ask; and the channels of it."""

from __future__ import annotations

from typing import Any

import pytest

from demo.audio.capture import Capture, _channel_counts, open_capture
from demo.audio.devices import Input, choose, labelled, resolve, scan
from demo.audio.source import MicrophoneError

WINDOWS = [("Mic", "MME"), ("Line", "MME"), ("Mic", "Windows DirectSound"), ("Mic", "Windows WASAPI")]


class Sound:
    """PortAudio's list of devices, and which one is opened with how many channels."""

    class PortAudioError(Exception):
        pass

    def __init__(self, devices: list[tuple[str, str]], channels: int = 2, most: int = 64) -> None:
        self.hosts = list(dict.fromkeys(host for _, host in devices))
        self.devices, self.channels, self.most = devices, channels, most
        self.opened: list[tuple[int, int]] = []
        self._initialized = 0

    @property
    def default(self) -> Any:
        return type("Default", (), {"device": [0, 0]})

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": host} for host in self.hosts]

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "hostapi": self.hosts.index(host),
                "max_input_channels": self.channels,
                "default_samplerate": 48000.0,
            }
            for name, host in self.devices
        ]

    def _initialize(self) -> None:
        self._initialized += 1

    def _terminate(self) -> None:
        self._initialized -= 1

    def InputStream(self, **settings: Any) -> Any:
        if settings["channels"] > self.most:
            raise self.PortAudioError("Invalid number of channels", -9998)
        self.opened.append((settings["device"], settings["channels"]))
        return type(
            "Stream", (), {"start": lambda self: None, "abort": lambda self: None, "close": lambda self: None}
        )()


def opened(sound: Sound, wanted: str | None, channel: int | None = None) -> tuple[int, int]:
    open_capture(sound, wanted, lambda *_: None, channel=channel)
    return sound.opened[-1]


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ("0", 0),
        ("2", 2),
        ("3", 3),
        ("Mic", 0),
        ("mic [windows wasapi]", 3),
        ("WASAPI", 3),
        ("lin", 1),
        ("DirectSound", 2),
    ],
)
def test_what_is_asked_for_is_opened_and_found_again(asked: str, index: int) -> None:
    sound = Sound(WINDOWS)
    found, default = scan(sound)
    wanted = resolve(found, asked, default)
    assert opened(sound, wanted)[0] == index
    sound.devices = [("New", "MME"), *WINDOWS]  # plugged in meanwhile: every number has changed
    assert opened(sound, wanted)[0] == index + 1


def test_a_menu_tells_equal_names_apart() -> None:
    found, _ = scan(Sound(WINDOWS))
    labels = [device.shown for device in found]
    assert labels == ["Mic [MME]", "Line", "Mic [Windows DirectSound]", "Mic [Windows WASAPI]"]
    for device in found:
        assert choose(found, None, device.shown)[0] is device
    assert choose(found, 3, "Mic")[0].index == 3  # of several that fit, the default one


def test_two_of_a_kind() -> None:
    found, _ = scan(Sound([("USB mic", "Core Audio"), ("USB mic", "Core Audio")]))
    assert [device.shown for device in found] == ["USB mic [Core Audio]", "USB mic [Core Audio] 2"]
    second = resolve(found, "1")
    assert choose(found, None, second)[0].index == 1
    alone = labelled(found[:1])  # one was unplugged: the other is what remains of that name
    assert choose(alone, None, second)[0].index == 0


def test_names_in_brackets_are_names() -> None:
    found = labelled([Input(0, "Mic [front]", 48000, 1, "ALSA"), Input(1, "Mic", 48000, 1, "ALSA")])
    assert choose(found, None, "Mic [front]")[0].index == 0 and choose(found, None, "Mic")[0].index == 1
    with pytest.raises(MicrophoneError, match="no microphone called 'Cam'; microphones found: 0 Mic"):
        resolve(found, "Cam")


@pytest.mark.parametrize(
    ("channels", "asked", "counts"),
    [
        (1, None, [1]),
        (2, None, [2, 1]),
        (8, None, [8, 1, 2]),
        (18, None, [8, 1, 2, 18]),
        (64, None, [2, 1, 64]),  # PulseAudio's front door
        (18, 12, [12, 18]),
        (18, 2, [2, 8, 18]),
    ],
)
def test_how_many_channels_are_asked_for(channels: int, asked: int | None, counts: list[int]) -> None:
    assert _channel_counts(Input(0, "Interface", 48000, channels), asked) == counts


def test_a_device_that_opens_with_fewer_channels_than_it_claims() -> None:
    assert opened(Sound(WINDOWS, channels=8, most=2), "Line") == (1, 1)
    with pytest.raises(MicrophoneError, match="expected a channel of 1 to 2, found 3"):
        opened(Sound(WINDOWS), "Line", channel=3)


def test_the_second_input_is_heard() -> None:
    """A microphone on input 2 of an interface, through the callback that PortAudio calls."""
    import numpy as np

    heard: list[Any] = []
    sound = Sound([("Interface", "ALSA")], channels=4)
    found, _ = scan(sound)
    capture = Capture(sound, found[0], lambda _, samples, *rest: heard.append(samples), ())
    voice = np.random.default_rng(0).normal(0, 0.1, (50, 960)).astype(np.float32)
    status = type("Status", (), {"input_overflow": False})
    for block in voice:
        capture._callback(np.stack([0 * block, block, 0 * block, 0 * block], axis=1), 960, None, status)
    assert np.array_equal(np.concatenate(heard), voice.reshape(-1)) and capture.channel_note
