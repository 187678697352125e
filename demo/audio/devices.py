"""Which microphones there are, and which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from demo.audio.source import MicrophoneError
from edge.system.child import ask, say, serve

# ALSA's converters and servers' front doors, which PortAudio lists as if they were microphones.
_NO_MICROPHONES = {"dmix", "jack", "lavrate", "null", "oss", "samplerate", "speex", "speexrate", "sysdefault"} | {
    "upmix",
    "usbstream",
    "vdownmix",
}
in_use: set[str] = set()  # names of devices this process has open; another one may not see them
NO_MICROPHONE = "no microphone found; plug one in (u2edge doctor says what is there)"


@dataclass(frozen=True)
class Input:
    """A device that can be opened for input."""

    index: int
    name: str
    rate: int  # Hz, its own
    channels: int
    host: str = ""  # host API: ALSA, Core Audio, MME, Windows WASAPI, ...
    label: str = ""  # the name, with the host API where several have the same one

    @property
    def shown(self) -> str:
        """What menus list and what finds this device again."""
        return self.label or self.name


@dataclass(frozen=True)
class Inputs(Sequence[str]):
    """Names for a menu; and when there are none, why, for a tooltip."""

    names: tuple[str, ...] = ()
    default: str | None = None
    why: str = ""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.names[index]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


def inputs(timeout_s: float = 10.0) -> Inputs:
    """Microphones that are plugged in now. Never raises.

    Asks another process: PortAudio looks for devices only when it starts, which would end a capture that runs, and
    it may hang or crash on sick ones. Takes about half a second: not for a drawing thread.
    """
    answer = ask("demo.audio.devices", {}, timeout_s)
    names = tuple(dict.fromkeys([*map(str, answer.data.get("names", ())), *sorted(in_use)]))
    why = str(answer.data.get("why", "")) or (f"listing microphones failed: {answer.failed}" if answer.failed else "")
    default = answer.data.get("default")
    return Inputs(names, None if default is None else str(default), why or ("" if names else NO_MICROPHONE))


def scan(sounddevice: Any) -> tuple[list[Input], int | None]:
    """Every input that PortAudio found when it started, and the index of the default one.

    Raises:
        sounddevice.PortAudioError: PortAudio fails.
    """
    hosts = [str(host["name"]) for host in sounddevice.query_hostapis()]
    found = labelled(
        Input(
            index,
            str(device["name"]),
            int(device["default_samplerate"]),
            int(device["max_input_channels"]),
            hosts[device["hostapi"]],
        )
        for index, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    )
    default = sounddevice.default.device[0]  # -1: none
    return found, default if any(device.index == default for device in found) else None


def labelled(found: Iterable[Input]) -> list[Input]:
    """``found`` with labels that tell devices of one name apart: "Mic [MME]", "Mic [Windows WASAPI]", "Mic [MME] 2"."""
    devices = list(found)
    names = [device.name for device in devices]
    full = [f"{device.name} [{device.host}]" for device in devices]
    result = []
    for i, device in enumerate(devices):
        before = full[:i].count(full[i])
        label = full[i] + (f" {before + 1}" if before else "")
        result.append(replace(device, label=label if names.count(device.name) > 1 else device.name))
    return result


def choose(found: Sequence[Input], default: int | None, wanted: str | None) -> list[Input]:
    """Inputs to try, best first; empty when there is none.

    None means the default one, then any other. A name means only it: exactly so, with its host API ("Mic [MME]") where
    that was asked for, or on another card (after it was plugged in again, ALSA may call "Desk mic (hw:1,0)" "Desk mic
    (hw:2,0)"), or a part of it. Of several that fit equally, the default one comes first.
    """
    if wanted is None:
        likely = [device for device in found if device.index == default or not _converter(device.name)]
        return sorted(likely, key=lambda device: device.index != default)
    name, host = _without_host(wanted, {device.host for device in found})
    for alike in (
        lambda device: device.shown == wanted,
        lambda device: device.name == wanted,
        lambda device: device.name == name and device.host == host,
        lambda device: _without_card(device.name) == _without_card(name) and host in ("", device.host),
        lambda device: wanted.lower() in device.shown.lower(),
    ):
        matches = [device for device in found if alike(device)]
        if matches:
            return sorted(matches, key=lambda device: device.index != default)
    return []


def resolve(found: Sequence[Input], wanted: str | None, default: int | None = None) -> str | None:
    """The label of what a user typed: a name, a part of one, or an index of PortAudio's list. The label finds this very
    device again, also among others of its name, and after the list has changed.

    Raises:
        MicrophoneError: no such input; the message lists those there are.
    """
    if wanted is None:
        return None
    if wanted.isdigit():
        matches = [device for device in found if device.index == int(wanted)]
    else:
        matches = choose(found, default, wanted)
    if not matches:
        known = ", ".join(f"{device.index} {device.shown}" for device in found) or "none"
        raise MicrophoneError(f"no microphone called {wanted!r}; microphones found: {known}")
    return matches[0].shown


def _converter(name: str) -> bool:
    return name in _NO_MICROPHONES


def _without_host(wanted: str, hosts: set[str]) -> tuple[str, str]:
    """A label's name and host API: "Mic [MME] 2" -> "Mic", "MME"; the host is "" where there is none of that name."""
    parts = re.fullmatch(r"(.+) \[(.+)\](?: \d+)?", wanted)
    return (parts[1], parts[2]) if parts and parts[2] in hosts else (wanted, "")


def _without_card(name: str) -> str:
    return re.sub(r" \(hw:\d+,\d+\)$", "", name)


def _list(task: dict[str, Any]) -> None:
    """The child's side of :func:`inputs`."""
    from demo.audio.portaudio import load

    try:
        sounddevice = load()
        found, default = scan(sounddevice)
    except Exception as error:  # MicrophoneError or sounddevice.PortAudioError: told, not raised
        say(why=str(error).strip().splitlines()[0])
        return
    menu = [device for device in found if device.index == default or not _converter(device.name)]
    names = [device.shown for device in menu]  # on Windows each appears once per host API
    say(names=names, default=next((device.shown for device in found if device.index == default), None))


if __name__ == "__main__":
    serve(_list)
