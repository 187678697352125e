"""What computes, where, and how: one object from the command line to the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineConfig:
    """An inference engine and its device.

    Args:
        engine: "onnxruntime"; "openvino"; or "auto": the one that is faster here, found by two seconds of trying and
            remembered for this machine and bundle.
        device: "CPU"; with openvino also "GPU" or "GPU.1" (an Intel one; the CPU when it cannot be used), or "AUTO": a
            GPU if there is one. Lower case will do.
        threads: within one operator; None: as many as pay, found by half a second of trying and remembered as the
            engine is (for an encoder above 100 MB: physical cores, at most 4).
        precision: of float arithmetic, the router's too; "f32", with openvino also "bf16" or "f16" where the device has
            it. int8 stays int8.
    """

    engine: str = "onnxruntime"
    device: str = "CPU"
    threads: int | None = None
    precision: str = "f32"

    def __post_init__(self) -> None:
        # The one place where names are brought into one form.
        object.__setattr__(self, "engine", str(self.engine).lower())
        object.__setattr__(self, "device", str(self.device).upper())
        object.__setattr__(self, "precision", str(self.precision).lower())

    @classmethod
    def of(cls, backend: Any) -> EngineConfig:
        """What a loaded backend turned out to be."""
        return cls(backend.name, backend.device, backend.threads, backend.precision)

    @property
    def title(self) -> str:
        """For people; what is not the default is said, threads are not."""
        words = [self.engine] + ([self.device] if self.device != "CPU" else [])
        return " ".join(words + ([self.precision] if self.precision != "f32" else []))

    def same_engine(self, other: EngineConfig) -> bool:
        """Whether both compute the same way: threads change no sum."""
        return self.title == other.title
