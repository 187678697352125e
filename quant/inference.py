"""Which engine runs a bundle that is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.runtime import Recognizer
from edge.runtime.backend import Backend


@dataclass(frozen=True)
class Inference:
    """As for ``Recognizer.load``; of a loaded recognizer, what "auto" turned out to be."""

    engine: str = "onnxruntime"
    device: str = "CPU"
    precision: str = "f32"  # of float arithmetic

    @classmethod
    def of(cls, backend: Backend) -> Inference:
        """What a loaded backend is."""
        return cls(backend.name, backend.device.upper(), backend.precision)

    def load(self, bundle: Path, threads: int | None = None, verify: bool = True) -> Recognizer:
        """``Recognizer.load`` with this engine.

        Raises:
            BundleError, BackendError: as ``Recognizer.load``.
        """
        return Recognizer.load(bundle, self.engine, self.device, threads, verify, self.precision)

    @property
    def title(self) -> str:
        """For people: what is not the default is said."""
        words = [self.engine] + ([self.device] if self.device != "CPU" else [])
        return " ".join(words + ([self.precision] if self.precision != "f32" else []))


def other_engine(bundle: Inference, engine: str | None) -> Inference:
    """What runs the baseline: the engine of the bundle, or ``engine`` as it is by default: on the CPU, in f32."""
    return bundle if engine is None else Inference(engine)


def alike(first: Inference, second: Inference) -> tuple[str, str]:
    """How to tell two apart, ``("", "")`` when they are the same."""
    return ("", "") if first == second else (first.title, second.title)
