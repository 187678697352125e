"""The one thread that talks to PortAudio.

PortAudio is not thread-safe, wants to be called on the thread that initialized it (WASAPI), and some of its calls hang
on sick devices. So all calls are made on one thread of its own, and whoever asks for one waits only so long.
"""

from __future__ import annotations

import atexit
import ctypes
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from demo.audio.source import MicrophoneError
from edge.system.distro import install_portaudio

LOAD_S = 20.0  # seconds that loading PortAudio may take: it looks at all devices
_POLL_S = 0.05

T = TypeVar("T")


class PortAudioHangs(MicrophoneError):
    """A call did not return in time. Calls made later wait for it."""


@dataclass
class _Task:
    work: Callable[[], Any]
    anyway: bool
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None
    given_up: bool = False
    discard: Callable[[Any], None] | None = None


class _Thread:
    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def call(
        self,
        work: Callable[[], T],
        timeout_s: float,
        *,
        cancel: threading.Event | None = None,
        discard: Callable[[T], None] | None = None,
        anyway: bool = False,
    ) -> T:
        """Do ``work`` on the thread and return its result, or raise what it raised.

        Args:
            cancel: stop waiting when it is set.
            discard: takes a result that came after nobody waited any more.
            anyway: do it even if nobody waits any more when its turn comes.

        Raises:
            PortAudioHangs: no result within ``timeout_s``, or cancelled.
        """
        task = _Task(work, anyway, discard=discard)
        with self._lock:
            if not self._started:
                threading.Thread(target=self._run, name="portaudio", daemon=True).start()
                self._started = True
        self._tasks.put(task)
        end = time.monotonic() + timeout_s
        while not task.done.wait(_POLL_S if cancel else timeout_s):
            cancelled = cancel is not None and cancel.is_set()
            if time.monotonic() < end and not cancelled:
                continue
            with self._lock:
                if not task.done.is_set():
                    task.given_up = True
                    if not cancelled:
                        _no_farewell()
                    raise PortAudioHangs("the sound system does not answer; if it stays so, restart the demo")
        if task.error is not None:
            raise task.error
        result: T = task.result
        return result

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task.given_up and not task.anyway:
                continue
            try:
                task.result = task.work()
            except BaseException as error:  # raised where it was asked for
                task.error = error
            with self._lock:
                task.done.set()
            if task.given_up and task.error is None and task.discard is not None:
                task.discard(task.result)


_thread = _Thread()
call = _thread.call


def load(timeout_s: float = LOAD_S) -> Any:
    """The module sounddevice.

    Raises:
        MicrophoneError: it, or PortAudio, is missing; the message says how to get it.
    """
    return call(_import, timeout_s)


def _import() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        if error.name != "sounddevice":
            raise MicrophoneError(f"the microphone needs {error.name}; type: pip install {error.name}") from None
        raise MicrophoneError("the microphone needs sounddevice; type: pip install 'u2edge[demo]'") from None
    except OSError:  # the wheel for Linux does not bring the library
        raise MicrophoneError(f"the microphone needs PortAudio; type: {install_portaudio()}") from None
    except Exception as error:  # sounddevice.PortAudioError, which cannot be imported now
        reason = reason_of(error)
        raise MicrophoneError(f"PortAudio does not start ({reason}); restart the sound server, try again") from None
    return sounddevice


def rescan(sounddevice: Any) -> None:
    """Make PortAudio look for devices anew; ends every open stream. To be called on the thread."""
    while sounddevice._initialized:
        sounddevice._terminate()
    sounddevice._initialize()


def reason_of(error: BaseException) -> str:
    """PortAudio's words in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _no_farewell() -> None:
    """When the interpreter exits, sounddevice ends PortAudio, which would hang too, and then unloads it under a thread
    that is in it still, which would crash."""
    module = sys.modules.get("sounddevice")
    if module is not None and hasattr(module, "_exit_handler") and hasattr(module, "_lib"):
        atexit.unregister(module._exit_handler)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(module._lib))
