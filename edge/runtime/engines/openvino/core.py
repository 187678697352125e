"""OpenVINO itself: import, devices, compilation. Imported only when that engine is asked for."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime.engines.openvino.products import FLOAT_PRODUCTS, saturates
from edge.runtime.errors import BackendError
from edge.system.user_cache import user_cache

log = logging.getLogger(__name__)

PRECISIONS = ("f32", "bf16", "f16")
_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


_KERNELS = 1000
"""Kernels kept per graph, one per layer and shape. OpenVINO keeps 5000: every new length of an utterance then takes
14 MB more, up to gigabytes (second pass of the int8 reference). With 1000 the chunks of a stream are as fast, with 500
they are not: the passes over whole utterances push their kernels out (docs/engines.md)."""


@dataclass(frozen=True)
class Compilation:
    """How graphs are compiled.

    ``precision`` is that of whatever a graph does in float. OpenVINO's own default is bf16 on CPUs with AMX or
    AVX512-BF16 and f16 on GPUs, the router of the experts included, and a router that rounds picks other experts.
    """

    device: str = "CPU"
    threads: int = 1
    precision: str = "f32"
    cache: Path | None = None  # folder of compiled graphs

    def properties(self) -> dict[str, Any]:
        """For ``Core.compile_model``."""
        found: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        if self.device == "CPU":
            # Pinned threads sit on cores another program may be using; a recognizer is rarely alone on a device.
            found |= {"INFERENCE_NUM_THREADS": self.threads, "ENABLE_CPU_PINNING": False}
            found["CPU_RUNTIME_CACHE_CAPACITY"] = _KERNELS
            found |= FLOAT_PRODUCTS if saturates() else {}
        if self.cache is not None:
            found["CACHE_DIR"] = str(self.cache)
        return found


@functools.cache
def openvino() -> Any:
    """The module.

    Raises:
        BackendError: it is not installed.
    """
    try:
        with _no_telemetry():
            import openvino
    except ImportError as error:
        raise BackendError(
            f"engine 'openvino' is not installed ({error}); run: pip install 'u2edge[openvino]'"
        ) from None
    return openvino


@functools.cache
def core() -> Any:
    """One ``openvino.Core`` for the process: it holds the plugins of all devices."""
    return openvino().Core()


def devices() -> list[str]:
    """Names of the devices OpenVINO finds: CPU, GPU, or GPU.0 and GPU.1, ..."""
    return [str(name) for name in core().available_devices]


def describe(device: str) -> str:
    """A device's full name; its short one when the driver does not answer."""
    try:
        return str(core().get_property(device, "FULL_DEVICE_NAME"))
    except RuntimeError:
        return device


def check_precision(device: str, precision: str) -> None:
    """Raises BackendError for a precision that ``device`` does not compute in."""
    able = {str(name) for name in core().get_property(device, "OPTIMIZATION_CAPABILITIES")}
    offered = [name for name in PRECISIONS if _CAPABILITY[name] in able]
    if precision not in offered:
        raise BackendError(f"precision: expected {' or '.join(offered)} on this {device}, found {precision!r}")


def graph_cache(checksum: str) -> Path | None:
    """Folder for the compiled graphs of one bundle; None, and one line in the log, when none can be written.

    OpenVINO finds a compiled graph by path and time of the model file, which a bundle copied over another may share;
    the folder is therefore named by ``checksum``.
    """
    # A home directory may be shared by machines, and what an older u2edge compiled is not to be found.
    products = "float" if saturates() else "int8"
    folder = user_cache(f"openvino/{checksum[:16]}-{products}")
    if folder is None:
        _say_once("no cache folder can be written, so graphs are compiled at every start; set XDG_CACHE_HOME")
    return folder


def compile_model(model: Any, how: Compilation) -> Any:
    """Compile a model, or the file at a path.

    Raises:
        BackendError: OpenVINO cannot read or compile it.
    """
    try:
        return core().compile_model(model, how.device, how.properties())
    except RuntimeError as error:
        if how.cache is None:
            raise BackendError(f"openvino {openvino().__version__} on {how.device}: {first_line(error)}") from None
    # A full disk, or a cache that went bad, is no reason not to run.
    with contextlib.suppress(OSError):
        for blob in how.cache.glob("*"):
            blob.unlink()
    return compile_model(model, Compilation(how.device, how.threads, how.precision))


def first_line(error: BaseException) -> str:
    """The message of an exception of OpenVINO, whose lines begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (useful or [line for line in lines if line] or [type(error).__name__])[0]


@functools.cache
def _say_once(message: str) -> None:
    log.warning("openvino: %s", message)


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """``import openvino`` reports itself to Intel (Google Analytics) when ``openvino_telemetry``, which it depends on,
    can be imported; without it OpenVINO uses a stub of its own. Speech stays on the device, and so does its use."""
    name = "openvino_telemetry"
    absent = object()
    before = sys.modules.get(name, absent)
    if before is absent:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's way to say: not there
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[name]
