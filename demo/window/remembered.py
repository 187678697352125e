"""What the window remembers from one start to the next: an INI file in the user's folder for settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from PySide6.QtCore import QByteArray, QSettings, QStandardPaths

from demo.settings import Settings
from demo.window.theme import Look
from edge.runtime import EdgeError, Manifest
from edge.runtime.options import plan

_log = logging.getLogger(__name__)
_ENGINES = ("onnxruntime", "openvino")
_LONGEST = 4096  # characters of a value that is believed


def config_file() -> Path:
    """``u2edge/demo.ini`` where this system keeps settings: ~/.config, ~/Library/Preferences or AppData."""
    folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericConfigLocation)
    return Path(folder) / "u2edge" / "demo.ini"


class Remembered:
    """Reads and writes the file. Whatever stands in it is checked; what cannot be used is left out.

    Only what the user changed in the window is written, so an option of the command line counts for one start.
    """

    def __init__(self, path: Path | None = None) -> None:
        """``path``: the file; None: nothing is remembered."""
        self._store = QSettings(str(path), QSettings.Format.IniFormat) if path is not None else None
        self.dropped: list[str] = []
        """What was remembered and could not be used, for people."""
        self.plain: Settings | None = None
        """What the command line asked for, when ``begin`` made something else of it."""
        self._began: Settings | None = None

    def begin(self, asked: Settings, given: Collection[str] = ()) -> Settings:
        """``asked`` with what is remembered in place of defaults.

        Args:
            asked: from the command line.
            given: names of its fields that the user gave; those stay.
        """
        settings = asked
        if "bundle" not in given and (bundle := self._read("bundle", Path)) is not None:
            settings = self._tried(settings, "bundle", bundle=bundle)
        if "engine" not in given and (engine := self._read("engine", str)):
            device = self._read("device", str) or "CPU"
            if engine in _ENGINES and importlib.util.find_spec(engine) is not None:
                chosen = dataclasses.replace(settings.engine, engine=engine, device=device)
                settings = dataclasses.replace(settings, engine=chosen)
            else:
                self._drop(f"engine {engine}", "it is no longer installed")
        for name, kind in (("chunk_ms", float), ("left_chunks", int), ("rescoring", _switch)):
            if name not in given and (value := self._read(name, kind)) is not None:
                settings = self._tried(settings, name, **{name: value})
        self.plain = asked if settings != asked else None
        self._began = settings
        return settings

    def keep(self, settings: Settings) -> None:
        """Write what differs from what the window began with."""
        began = self._began
        if began is None:
            return
        if settings.bundle != began.bundle:
            self._write("bundle", str(settings.bundle.absolute()))
        if settings.engine != began.engine:
            self._write("engine", settings.engine.engine)
            self._write("device", settings.engine.device)
        for name in ("chunk_ms", "left_chunks", "rescoring"):
            if (value := getattr(settings, name)) != getattr(began, name):
                self._write(name, value)

    def clear(self) -> None:
        """Forget everything until now."""
        if self._store is not None:
            self._store.clear()
            self._store.sync()

    def forget(self) -> None:
        """Forget everything, and remember nothing more until the next start."""
        self.clear()
        self._store = self._began = None

    def refused(self, why: str) -> None:
        """The recognizer did not accept what was remembered: forget those settings."""
        if self._store is not None:
            for name in ("bundle", "engine", "device", "chunk_ms", "left_chunks", "rescoring"):
                self._store.remove(name)
        self._began, self.plain = self.plain, None
        self._drop("settings", why)

    @property
    def microphone(self) -> str | None:
        """The name of the device last chosen; None: the system's default."""
        return self._read("microphone", str) or None

    @microphone.setter
    def microphone(self, name: str | None) -> None:
        self._write("microphone", name)

    @property
    def look(self) -> Look:
        return self._read("look", Look) or Look.SYSTEM

    @look.setter
    def look(self, look: Look) -> None:
        self._write("look", look.value)

    @property
    def geometry(self) -> QByteArray | None:
        """Size and place of the window, for ``restoreGeometry``."""
        found = self._store.value("geometry") if self._store is not None else None
        return found if isinstance(found, QByteArray) else None

    @geometry.setter
    def geometry(self, geometry: QByteArray) -> None:
        self._write("geometry", geometry)

    def folder(self, purpose: str) -> Path | None:
        """Where the user last went for ``purpose`` ("recordings", "transcripts" …), if it is still there."""
        found = self._read(f"folders/{purpose}", Path)
        return found if found is not None and found.is_dir() else None

    def visited(self, purpose: str, folder: Path) -> None:
        """The user chose something in ``folder``."""
        self._write(f"folders/{purpose}", str(folder.absolute()))

    def _tried(self, settings: Settings, name: str, **changes: Any) -> Settings:
        """``settings`` changed, if the bundle's manifest allows it."""
        changed = dataclasses.replace(settings, **changes)
        try:
            text = (changed.bundle / "manifest.json").read_text(encoding="utf-8")
            plan(changed.decode(), Manifest.from_json(text))
        except (EdgeError, OSError, ValueError) as error:
            self._drop(f"{name.replace('_', ' ')} {changes[name]}", str(error))
            return settings
        return changed

    def _drop(self, what: str, why: str) -> None:
        _log.debug("remembered %s is not used: %s", what, why)
        self.dropped.append(what)

    def _read(self, name: str, kind: Callable[[str], Any]) -> Any:
        """None when it is absent or makes no sense."""
        text = self._store.value(name) if self._store is not None else None
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
            return None
        try:
            return kind(text)
        except ValueError:
            self._drop(name.replace("_", " "), f"{text!r} makes no sense")
            return None

    def _write(self, name: str, value: Any) -> None:
        if self._store is None:
            return
        if value is None:
            self._store.remove(name)
        else:
            self._store.setValue(name, value if isinstance(value, QByteArray) else str(value))


def _switch(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"
