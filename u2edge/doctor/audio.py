"""Microphones: which there are, what they can do, and whether the default one hears anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from edge.system.child import ask
from edge.system.distro import OS_RELEASE, install_portaudio
from u2edge.doctor.section import Problem, Section, plural

_LISTEN_S = 1.0
_LIST_S = 15.0  # seconds to list the devices and to open the default one
_SILENT_DBFS = -75.0  # peak; the noise of a 16-bit microphone that is on is above it
_CLIPPED = 3  # samples at full scale; one alone can be chance


def examine(listen: bool, sound: Path = Path("/dev/snd"), os_release: Path = OS_RELEASE) -> Section:
    """Ask a child that may hang; ``listen`` False lists only."""
    seconds = _LISTEN_S if listen else 0.0
    answer = ask("u2edge.doctor.microphones", {"listen_s": seconds}, _LIST_S + seconds)
    data, devices = answer.data, answer.data.get("devices", [])
    lines = [_describe(device) for device in devices] or ["none"]
    missing = data.get("missing")
    problems = []
    if missing:
        lines = ["unknown"]
        fix = "pip install 'u2edge[demo]'" if missing == "sounddevice" else install_portaudio(os_release)
        what = "the Python package sounddevice" if missing == "sounddevice" else "the PortAudio library"
        problems.append(Problem("warning", f"{what} is missing: microphones cannot be used, files can", fix))
    elif answer.failed and "level" not in data:
        fix = "unplug it or choose another: u2edge demo --device NAME" if devices else "restart the sound server"
        problems.append(Problem("warning", f"listing and opening microphones failed: {answer.failed}", fix))
        lines = lines if devices else ["unknown: PortAudio did not answer"]
    elif not devices:
        problems.append(_none(sound))
    facts: dict[str, Any] = {**data, "failed": answer.failed, "listened_s": seconds}
    if listen and devices:
        more, found = _level(data)
        lines += more
        problems += found
    elif devices:
        lines.append("level not measured (--no-microphone)")
    return Section("microphones", facts, lines, problems)


def _describe(device: dict[str, Any]) -> str:
    rates = " ".join(f"{rate / 1000:g}" for rate in device["rates"]) or "unknown"
    default = ", default" if device["default"] else ""
    return f"{device['name']} ({device['host']}{default}): {rates} kHz, {plural(device['channels'], 'channel')}"


def _level(data: dict[str, Any]) -> tuple[list[str], list[Problem]]:
    level = data.get("level")
    if level is None:
        reason = data.get("level_failed")
        if reason is None:  # the child died; that is a problem already
            return ["level unknown"], []
        fix = "choose another: u2edge demo --device NAME; close programs that hold it"
        return ["level unknown"], [Problem("warning", f"the default microphone cannot be opened: {reason}", fix)]
    peak, rms = level["peak_dbfs"], level["rms_dbfs"]
    shown = "digital silence" if peak is None else f"peak {peak:g} dBFS, RMS {rms:g} dBFS"
    lines = [f"level of {data['level_device']} over {level['samples'] / data['level_rate']:.1f} s: {shown}"]
    if peak is None or peak < _SILENT_DBFS:
        fix = "unmute it in the system's sound settings or alsamixer (F4), and look for a switch on it"
        return lines, [Problem("warning", f"the default microphone is silent ({shown}): muted?", fix)]
    if level["clipped"] >= _CLIPPED:
        text = f"the default microphone clips ({level['clipped']} samples at full scale)"
        return lines, [Problem("warning", text, "lower its gain in the system's sound settings or alsamixer (F4)")]
    return lines, []


def _none(sound: Path) -> Problem:
    """No microphone, and why."""
    text = "no microphone"
    if not sys.platform.startswith("linux"):
        fix = "plug one in, and allow the terminal to use it in the system's privacy settings"
    elif not sound.is_dir():
        text += ": Linux sees no sound hardware (/dev/snd is missing)"
        fix = "plug one in; in a container: docker run --device /dev/snd --group-add audio"
    elif any(not os.access(path, os.R_OK | os.W_OK) for path in sound.glob("pcm*c")):
        text += ": this user may not open the sound hardware (/dev/snd)"
        fix = "sudo usermod -aG audio $USER, then log in again"
    else:
        fix = "plug one in; arecord -l lists what Linux sees"
    return Problem("warning", text, f"{fix}; files work without one")
