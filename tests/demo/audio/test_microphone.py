"""The demo's microphone through real PortAudio and ALSA, from devices that can be taken away.

The wave is a ramp, so each sample says which one it is: what is missing can be told from what was heard.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from virtual_mic import Room, VirtualMicrophone, build, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

RAMP: NDArray[np.int16] = (np.arange(120 * 48000) & 0xFFFF).astype(np.uint16).view(np.int16)
Event = dict[str, Any]


class Ear:
    """A listening process; what it says, and what it heard."""

    def __init__(self, room: Room, folder: Path, device: str | None, prelude: str) -> None:
        self._folder = folder
        script = f"import sys\n{prelude}\nfrom virtual_mic.listener import main\nmain()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder), *([device] if device else [])],
            env=room.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # PortAudio's complaints about broken devices fill disks
            text=True,
        )
        self.events: list[Event] = []
        self._new: queue.Queue[Event] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(json.loads(line))

    def wait(self, wanted: Callable[[Event], object], timeout_s: float = 15.0) -> Event:
        """The next event that is wanted."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                event = self._new.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"nothing within {timeout_s} s; so far {self.events}") from None
            self.events.append(event)
            if wanted(event):
                return event

    def sound(self, timeout_s: float = 15.0) -> Event:
        """The first block, or the next one after a gap."""
        return self.wait(lambda event: event["event"] == "sound", timeout_s)

    def notice(self, part: str) -> Event:
        return self.wait(lambda event: event["event"] == "notice" and part in event["text"])

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def close(self) -> Event:
        self.tell("close")
        closed = self.wait(lambda event: event["event"] == "closed")
        self.wait(lambda event: event["event"] == "written")
        assert self.process.wait(5.0) == 0  # also with a PortAudio that hangs
        return closed

    def heard(self) -> dict[str, NDArray[Any]]:
        with np.load(self._folder / "heard.npz") as data:
            return dict(data)


Listen = Callable[..., Ear]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("alsa"))


@pytest.fixture
def room(plugin: Path, tmp_path: Path) -> Room:
    return Room(tmp_path / "room", plugin)


@pytest.fixture
def desk(room: Room) -> VirtualMicrophone:
    """The microphone that is listened to; another one is there, and neither is silent."""
    found = room.add("desk", RAMP)
    room.add("headset", RAMP[::-1].copy()).speak()
    found.speak()
    return found


@pytest.fixture
def listen(room: Room, tmp_path: Path) -> Iterator[Listen]:
    ears: list[Ear] = []

    def make(device: str | None = "desk", prelude: str = "") -> Ear:
        ears.append(Ear(room, tmp_path, device, prelude))
        return ears[-1]

    yield make
    for ear in ears:
        ear.process.kill()
        ear.process.wait()


def check(heard: dict[str, NDArray[Any]], rate: int = 16000, tolerance_ms: float = 250.0) -> None:
    """Every sample is the device's, bit by bit, and what is missing is where ``gap_ms`` says, and as much."""
    assert set(heard["rate"]) == {rate}
    np.testing.assert_array_equal(heard["first"], np.cumsum([0, *heard["length"][:-1]]))
    scaled = heard["samples"].astype(np.float64) * 32768
    position = scaled.astype(np.int64)
    np.testing.assert_array_equal(position, scaled)
    jumps = (np.diff(position) - 1) % 65536  # frames missing, but for whole rounds of the ramp
    # A device that was opened while it stood still may hand out some samples of before.
    for at in np.flatnonzero(jumps):
        assert np.abs(heard["first"][heard["gap_ms"] > 0] - at - 1).min() <= rate // 10, f"unsaid gap after {at}"
    said = heard["gap_ms"].sum() * rate / 1000
    off = (said - jumps.sum() + 32768) % 65536 - 32768
    assert abs(off) < tolerance_ms * rate / 1000, (heard["gap_ms"][heard["gap_ms"] > 0], jumps[jumps > 0])


@pytest.mark.parametrize(("rate", "name"), [(48000, None), (16000, "desk"), (44100, "DESK")])
def test_hears_every_sample(room: Room, listen: Listen, rate: int, name: str | None) -> None:
    microphone = room.add("desk", RAMP, rate)
    begins = microphone.speak()
    ear = listen(name)
    opened = ear.wait(lambda event: event["event"] == "opened")
    assert opened["rate"] == rate and opened["name"] == ("default" if name is None else "desk")
    ear.sound()
    time.sleep(2.5)
    closed = ear.close()
    heard = ear.heard()
    check(heard, rate)
    assert len(heard["samples"]) > 2.0 * rate
    assert closed["dropped"] == 0 and closed["ended"]
    assert (closed["overflows"] > 0) == (microphone.overruns > 0) == bool(heard["gap_ms"].any())
    # Samples are said to have existed when they did: not before, and not long after.
    index = round(float(heard["samples"][-1]) * 32768) % 65536
    existed = begins + index / rate
    late = float(heard["captured"][-1] - existed) % (65536 / rate)
    assert late < 0.4


@pytest.mark.parametrize("fault", ["unplug", "stall", "break_down"])
def test_comes_back(desk: VirtualMicrophone, listen: Listen, fault: str) -> None:
    """The issue's limit: within 5 s of replugging. The other microphone is not listened to meanwhile."""
    ear = listen("desk")
    ear.sound()
    time.sleep(1.0)
    getattr(desk, fault)()
    told = ear.notice("text so far is kept")
    assert told["severity"] == "warning" and "desk" in told["text"]
    if fault == "unplug":
        ear.notice("desk is unplugged. Plug it in again")
    if fault == "break_down":
        assert ear.notice("does not answer")["severity"] == "error"
    time.sleep(2.0)
    assert ear._new.empty()  # nothing was heard, and nothing is said twice
    replugged = desk.replug()
    again = ear.sound(10.0)
    assert again["name"] == "desk"
    assert again["captured"] - replugged < 5.0
    assert again["gap_ms"] > 2000
    ear.notice("desk is back")
    time.sleep(0.5)
    closed = ear.close()
    check(ear.heard())
    assert closed["dropped"] == 0
    assert closed["lost_ms"] == pytest.approx(ear.heard()["gap_ms"].sum())


def test_the_default_is_replaced_by_another_and_says_so(desk: VirtualMicrophone, listen: Listen) -> None:
    ear = listen(None)
    ear.sound()
    desk.unplug()
    again = ear.sound()
    assert again["gap_ms"] > 500
    assert ear.notice("instead of default")["text"] == "Listening to headset instead of default."
    ear.close()
    position = np.round(ear.heard()["samples"] * 32768).astype(np.int64)
    assert position[1] - position[0] in (1, -65535)
    assert position[-1] - position[-2] in (-1, 65535)  # the headset's ramp goes down


@pytest.mark.parametrize("fault", ["unplug", "stall", "break_down"])
@pytest.mark.parametrize("wait_s", [0.2, 2.5])
def test_closing_a_sick_device_is_quick(desk: VirtualMicrophone, listen: Listen, fault: str, wait_s: float) -> None:
    ear = listen("desk")
    ear.sound()
    getattr(desk, fault)()
    time.sleep(wait_s)
    assert ear.close()["took_s"] < 2.0


def test_a_process_that_was_stopped_says_what_it_missed(desk: VirtualMicrophone, listen: Listen) -> None:
    """Ctrl-Z, or a computer that is far too busy: the driver's buffer overflows."""
    ear = listen("desk")
    ear.sound()
    time.sleep(0.5)
    os.kill(ear.process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(ear.process.pid, signal.SIGCONT)
    assert ear.sound()["gap_ms"] > 1000
    ear.notice("sound was lost")
    time.sleep(0.5)
    closed = ear.close()
    check(ear.heard())
    assert desk.overruns > 0 and closed["overflows"] > 0
    assert desk.opened == 1 + desk.overruns  # PortAudio started it again; we had no reason to reopen it


def test_a_reader_that_pauses_too_long_is_told_what_it_missed(desk: VirtualMicrophone, listen: Listen) -> None:
    ear = listen("desk", prelude="import demo.audio.supervisor as s; s.KEPT_S = 1.0")
    ear.sound()
    ear.tell("sleep 2.5")
    gap = ear.sound()
    time.sleep(0.3)
    closed = ear.close()
    check(ear.heard(), tolerance_ms=25)
    assert closed["dropped"] > 0
    assert gap["gap_ms"] == pytest.approx(20 * closed["dropped"], abs=20) == pytest.approx(1500, abs=500)


def test_sleep_is_noticed(desk: VirtualMicrophone, listen: Listen) -> None:
    """The kernel's clock that counts sleep runs ahead by ten minutes: what it does when the lid was closed."""
    prelude = (
        "import time; import demo.audio.supervisor as s; wakes = time.monotonic() + 2.0\n"
        "s.slept_s = lambda: 600.0 * (time.monotonic() > wakes)"
    )
    ear = listen("desk", prelude=prelude)
    ear.sound()
    ear.notice("the computer slept for 10 min")
    ear.notice("desk is back")
    ear.close()
    assert ear.heard()["gap_ms"].sum() == pytest.approx(600_000, abs=5_000)


def test_two_channels_become_one(room: Room, listen: Listen) -> None:
    room.add("desk", np.stack([RAMP, RAMP], axis=1), 48000, channels=2).speak()
    ear = listen("desk")
    ear.sound()
    time.sleep(0.5)
    ear.close()
    check(ear.heard(), 48000)


def refusal(ear: Ear) -> str:
    return str(ear.wait(lambda event: event["event"] in ("refused", "opened"))["text"])


def test_what_is_wrong_at_the_beginning(desk: VirtualMicrophone, room: Room, listen: Listen) -> None:
    text = refusal(listen("kitchen"))
    assert "no microphone called 'kitchen'; microphones found: 0 desk, 1 headset, 2 default" in text
    assert "pip install 'u2edge[demo]'" in refusal(listen(prelude="sys.modules['sounddevice'] = None"))
    for microphone in room.microphones.values():
        microphone.unplug()
    assert "no microphone found; plug one in" in refusal(listen(None))
    assert "no microphone called 'desk'; microphones found: none" in refusal(listen("desk"))


def test_portaudio_missing(desk: VirtualMicrophone, tmp_path: Path, listen: Listen) -> None:
    """sounddevice's own import, on a system where no PortAudio is found."""
    prelude = "import ctypes.util; ctypes.util.find_library = lambda name: None"
    text = refusal(listen("desk", prelude=prelude))
    assert "PortAudio; type: " in text and "portaudio" in text.split("type: ")[1]


MENU = """
from demo.audio import inputs
found = inputs()
print(list(found), found.default, found.why, sep="|")
"""


def menu(room: Room, before: str = "") -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", before + MENU], env=room.environment(), capture_output=True, text=True, timeout=60
    )
    return result.stdout.strip().split("|")


def test_menu(desk: VirtualMicrophone, room: Room) -> None:
    """What is plugged in now, also while a capture runs."""
    before = (
        "import time; from demo.audio import MicrophoneSource; source = MicrophoneSource('desk')\n"
        f"import mmap; file = open({str(room._folder / 'headset.control')!r}, 'r+b')\n"
        "mmap.mmap(file.fileno(), 24)[0:4] = bytes([1, 0, 0, 0])"  # the headset is unplugged after it was listed
    )
    assert menu(room) == ["['desk', 'headset', 'default']", "default", ""]
    assert menu(room, before) == ["['desk', 'default']", "default", ""]
    desk.unplug()
    names, default, why = menu(room)
    assert (names, default) == ("[]", "None") and "plug one in" in why
    assert "u2edge[demo]" in menu(room, "import os; os.environ['PYTHONPATH'] = ''\n" + _HIDDEN)[2]


_HIDDEN = """
import tempfile, pathlib
folder = tempfile.mkdtemp()
pathlib.Path(folder, "sounddevice.py").write_text("raise ModuleNotFoundError('gone', name='sounddevice')")
os.environ["PYTHONPATH"] = folder
"""
