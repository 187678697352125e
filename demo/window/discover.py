"""What there is to choose from: bundles, engines, microphones, samples. Reads files and asks drivers, so it runs on
threads of its own; Qt-free."""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime import EdgeError, EngineConfig, Manifest

_MAX_FOLDERS = 64


@dataclass(frozen=True)
class BundleChoice:
    """A bundle of the same model."""

    path: Path
    label: str  # "fp32", "int8"
    name: str
    scheme: str
    megabytes: float


@dataclass(frozen=True)
class EngineChoice:
    """An engine on a device."""

    engine: str
    device: str

    @classmethod
    def of(cls, config: EngineConfig) -> EngineChoice:
        """The one of ``config``."""
        return cls(config.engine, config.device)

    @property
    def label(self) -> str:
        name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(self.engine, self.engine)
        return f"{name} · {self.device}"


class Background:
    """Runs work on daemon threads, and what to do with its result where ``drain`` is called."""

    def __init__(self) -> None:
        self._done: queue.SimpleQueue[tuple[Callable[[Any], None], Any]] = queue.SimpleQueue()

    def do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Start ``work``; nothing happens when it raises an error that ``EdgeError`` or ``OSError`` covers: the choice
        it looked for is not there."""

        def run() -> None:
            with contextlib.suppress(EdgeError, OSError):
                self._done.put((then, work()))

        threading.Thread(target=run, daemon=True, name="u2edge-look").start()

    def drain(self) -> None:
        """Hand over what has been finished; on the drawing thread."""
        while True:
            try:
                then, result = self._done.get_nowait()
            except queue.Empty:
                return
            then(result)


def bundles(path: Path) -> list[BundleChoice]:
    """The bundle and those beside it that were made from the same checkpoint, float first.

    Raises:
        EdgeError: the manifest of ``path`` cannot be read.
    """
    own = _manifest(path)
    found = [(path, own)]
    beside = sorted(p for p in path.resolve().parent.iterdir() if (p / "manifest.json").is_file())
    for folder in beside[:_MAX_FOLDERS]:
        if folder == path.resolve():
            continue
        with contextlib.suppress(EdgeError, OSError):
            manifest = _manifest(folder)
            if manifest.source.sha256 and manifest.source.sha256 == own.source.sha256:
                found.append((path.parent / folder.name, manifest))
    found.sort(key=lambda item: (_label(item[1]) != "fp32", str(item[0])))
    labels = [_label(manifest) for _, manifest in found]
    return [
        BundleChoice(
            path=where,
            label=label if labels.count(label) == 1 else f"{label} {where.name}",
            name=manifest.name,
            scheme=manifest.encoder.scheme,
            megabytes=sum(graph.bytes for graph in manifest.graphs) / 1e6,
        )
        for label, (where, manifest) in zip(labels, found)
    ]


def engines() -> list[EngineChoice]:
    """Installed engines and the devices they find."""
    found = [EngineChoice("onnxruntime", "CPU")]
    if importlib.util.find_spec("openvino") is not None:
        try:
            from edge.runtime.engines.openvino.core import devices

            found += [EngineChoice("openvino", device) for device in devices()]
        except (EdgeError, RuntimeError):
            found.append(EngineChoice("openvino", "CPU"))
    return found


def microphones() -> list[str]:
    """Names of inputs; empty when there is none or no PortAudio."""
    from demo.audio.devices import inputs

    return list(inputs())


def _manifest(path: Path) -> Manifest:
    return Manifest.from_json((path / "manifest.json").read_text(encoding="utf-8"))


def _label(manifest: Manifest) -> str:
    labels = {"fp32": "fp32", "static": "int8", "mixed": "int8", "dynamic": "int8 dynamic"}
    return labels.get(manifest.encoder.scheme, manifest.encoder.scheme)
