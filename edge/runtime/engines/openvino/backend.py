"""Which of OpenVINO's devices runs a bundle."""

from __future__ import annotations

import logging

from edge.runtime.bundle import Bundle
from edge.runtime.engines.base import Backend
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.contract import default_threads
from edge.runtime.engines.openvino.core import devices, openvino
from edge.runtime.engines.openvino.cpu import OpenVinoBackend
from edge.runtime.engines.openvino.gpu import StaticBackend
from edge.runtime.errors import BackendError

log = logging.getLogger(__name__)


def load(bundle: Bundle, config: EngineConfig) -> Backend:
    """Load the bundle's graphs; threads of None: physical cores, at most 4.

    On a GPU the CPU stands behind it. Where there is none, the CPU runs alone, and one line in the log says so unless
    the device is AUTO.

    Raises:
        BackendError: OpenVINO is not installed, another device or precision, a graph OpenVINO refuses, or inputs and
            outputs unlike the manifest.
    """
    openvino()
    device = config.device
    if device != "AUTO" and device.partition(".")[0] not in ("CPU", "GPU"):
        raise BackendError(
            f"device: expected CPU, GPU or AUTO for the openvino engine, found {device!r}; "
            f"this machine has {', '.join(devices())}"
        )
    cpu = OpenVinoBackend(bundle, config.threads or default_threads(), config.precision)
    if device == "CPU":
        return cpu
    there = devices()
    gpus = [name for name in there if name.partition(".")[0] == "GPU"]
    wanted = gpus[0] if gpus and device in ("AUTO", "GPU") else device
    if wanted in gpus:
        return StaticBackend(bundle, cpu, wanted)
    if device != "AUTO":
        found = ", ".join(there)
        log.warning(
            "openvino: expected %s, found %s (is Intel's GPU driver installed?), running on the CPU", device, found
        )
    return cpu
