"""Python, the packages that do the work, inference engines and their devices."""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from typing import Any

from edge.system.child import ask, say, serve
from edge.system.distro import install_gpu_driver
from edge.system.versions import version
from u2edge.doctor.section import Problem, Section

_PACKAGES = ("u2edge", "numpy", "onnxruntime", "openvino", "kaldi-native-fbank", "soundfile", "soxr", "sounddevice")
_MODULES = {"kaldi-native-fbank": "kaldi_native_fbank"}
_NEEDED = ("numpy", "onnxruntime", "kaldi-native-fbank", "soundfile", "soxr")
_SECONDS = 60.0  # the first import of a package can be slow
_INTEL = "0x8086"


def examine(drm: Path = Path("/sys/class/drm")) -> Section:
    """Versions; whether each package can be imported; devices of OpenVINO. In a child: drivers may crash."""
    answer = ask("u2edge.doctor.engines", {}, _SECONDS)
    imports: dict[str, str] = answer.data.get("imports", {})
    versions = {name: found for name in _PACKAGES if (found := version(name))}
    problems = []
    for name in _NEEDED:
        reason = imports.get(name, answer.failed or "no answer")
        if reason:
            problems.append(
                Problem("error", f"{name} cannot be used: {reason}", f"pip install --force-reinstall {name}")
            )
    devices: dict[str, str] = answer.data.get("openvino_devices", {})
    lines = [", ".join([f"python {platform.python_version()}", *(f"{k} {v}" for k, v in versions.items())])]
    lines.append(f"onnxruntime: {'cpu' if not imports.get('onnxruntime', 'x') else 'does not work'}")
    if "openvino" not in versions:
        lines.append("openvino: not installed")
        problems.append(
            Problem("note", "OpenVINO is not installed; it can be the faster engine", "pip install 'u2edge[openvino]'")
        )
    elif not devices:
        reason = imports.get("openvino") or answer.data.get("openvino_failed") or answer.failed or "it lists no device"
        lines.append("openvino: does not work")
        problems.append(
            Problem("warning", f"OpenVINO does not work: {reason}", "pip install --force-reinstall openvino")
        )
    else:
        lines.append("openvino: " + ", ".join(f"{name} ({full})" for name, full in devices.items()))
    gpu = intel_gpu(drm)
    if gpu and devices and not any(name.startswith("GPU") for name in devices):
        problems.append(_gpu_hidden(drm))
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions,
        "imports": imports,
        "openvino_devices": devices,
        "intel_gpu": gpu,
    }
    return Section("engines", facts, lines, problems)


def intel_gpu(drm: Path = Path("/sys/class/drm")) -> bool:
    """Whether Linux sees a graphics device of Intel."""
    for vendor in sorted(drm.glob("card*/device/vendor")):
        try:
            if vendor.read_text().strip() == _INTEL:
                return True
        except OSError:
            continue
    return False


def _gpu_hidden(drm: Path) -> Problem:
    text = "an Intel GPU is there, but OpenVINO does not see it"
    nodes = sorted(Path("/dev/dri").glob("renderD*"))
    if nodes and not any(_readable(node) for node in nodes):
        return Problem(
            "warning", f"{text}: no permission for {nodes[0]}", "sudo usermod -aG render $USER, log in again"
        )
    return Problem("warning", f"{text}: its compute driver is missing", install_gpu_driver())


def _readable(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return True
    except OSError:
        return False


def _probe(task: dict[str, Any]) -> None:
    """The child: import every package, then ask OpenVINO, whose GPU plugin is the likeliest to crash."""
    imports = {}
    for name in _NEEDED:
        imports[name] = _try_import(_MODULES.get(name, name))
        say(imports=imports)
    if not version("openvino"):
        return
    imports["openvino"] = _try_openvino()
    say(imports=imports)
    if imports["openvino"]:
        return
    from edge.runtime.engines.openvino.core import core as openvino_core

    core = openvino_core()
    found: dict[str, str] = {}
    for device in core.available_devices:
        found[device] = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        say(openvino_devices=found)


def _try_openvino() -> str:
    """As ``_try_import``; through the loader that keeps OpenVINO's telemetry off."""
    from edge.runtime.engines.openvino.core import openvino

    try:
        openvino()
    except Exception as error:  # whatever a broken installation raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


def _try_import(module: str) -> str:
    """Why ``module`` cannot be imported, in one line; "" when it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a missing shared library is an OSError or ImportError, and not only these
        text = str(error).strip().splitlines()
        return text[0] if text else type(error).__name__
    return ""


if __name__ == "__main__":
    serve(_probe)
