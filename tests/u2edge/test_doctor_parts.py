"""The parts of u2edge doctor by themselves: verdicts, hints, limits of containers, what may leave the machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from edge.system import distro
from u2edge.doctor import audio, bundle, cpu, engines, limits, speed
from u2edge.doctor.microphones import level
from u2edge.doctor.report import anonymous, as_data
from u2edge.doctor.section import Problem, Section

CPU = cpu.Cpu("Test", "x86_64", 4, 8, 8, 4, None, ("avx2", "avx512f", "avx512_vnni"), "", 16000, 8000)


@pytest.mark.parametrize(
    ("isa", "vnni"),
    [
        (("avx2",), False),
        (("avx2", "avx512f"), False),
        (("avx2", "avx_vnni"), True),
        (("avx2", "avx512_vnni"), True),
        (("avx2", "amx_int8"), True),
    ],
)
def test_int8_is_nothing_to_warn_of_on_any_processor(isa: tuple[str, ...], vnni: bool) -> None:
    """VNNI or not: the sums are the same. Whether the processor has it is told as a fact."""
    processor = dataclasses.replace(CPU, isa=isa)
    shipped = ROOT / "models" / "reference-int8"
    section = bundle.examine(shipped, processor)
    assert section.facts["ok"] and section.facts["schemes"] == ["static"] and not section.problems
    machine = cpu.examine(processor)
    assert not machine.problems and machine.facts["vnni"] == vnni
    assert any("; no VNNI" in line for line in machine.lines) != vnni


def rtfs(*values: float, engine: str = "onnxruntime", device: str = "cpu") -> dict[str, Any]:
    rows = [{"chunk_ms": ms, "rtf": rtf} for ms, rtf in zip(speed.CHUNKS_MS, values, strict=True)]
    return {"engine": engine, "device": device, "chunks": rows, "failed": ""}


def test_verdict() -> None:
    text, found = speed.verdict([rtfs(0.3, 0.2, 0.1, 0.1)], "fp32")
    assert text == "your machine runs this bundle at RTF 0.1: chunks of 640 ms leave 90 % idle" and not found
    text, (tight,) = speed.verdict([rtfs(2.0, 1.4, 0.9, 0.6)], "fp32")
    assert "10 % idle" in text or "9 % idle" in text
    assert tight.level == "warning" and "--chunk-ms 1280" in tight.fix and "int8" in tight.fix
    _, (tight,) = speed.verdict([rtfs(2.0, 1.4, 0.9, 0.85)], "static")
    assert tight.level == "warning" and "--chunk-ms" not in tight.fix and "int8" not in tight.fix
    text, (slow,) = speed.verdict([rtfs(4.0, 3.0, 2.0, 1.5)], "fp32")
    assert slow.level == "error" and "0 % idle" in text
    gpu = rtfs(0.2, 0.2, 0.1, 0.1, engine="openvino", device="GPU")
    _, (slow,) = speed.verdict([rtfs(4.0, 3.0, 2.0, 1.5), gpu], "fp32")
    assert slow.level == "warning" and "--engine openvino --device GPU" in slow.fix
    failed = {"engine": "onnxruntime", "device": "cpu", "chunks": [], "failed": "x"}
    assert speed.verdict([failed, gpu], "fp32")[0].startswith("your machine runs this bundle at RTF 0.1")
    assert speed.verdict([failed], "fp32")[1][0].level == "error"


def test_level_in_decibels() -> None:
    """A full-scale sine has a peak of 0 dBFS and an RMS of -3.01 dB; a tenth of it 20 dB less."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    loud, soft = level(sine), level(sine / 10)
    assert (loud["peak_dbfs"], loud["rms_dbfs"]) == (0.0, -3.0) and loud["clipped"] == 2000
    assert (soft["peak_dbfs"], soft["rms_dbfs"], soft["clipped"]) == (-20.0, -23.0, 0)
    assert level(np.zeros(10, np.float32)) == {"samples": 10, "peak_dbfs": None, "rms_dbfs": None, "clipped": 0}


def test_level_hints() -> None:
    def hint(peak: float | None, clipped: int = 0) -> list[Problem]:
        found = {"samples": 16000, "peak_dbfs": peak, "rms_dbfs": peak, "clipped": clipped}
        return audio._level({"level": found, "level_device": "x", "level_rate": 16000})[1]

    assert "muted?" in hint(None)[0].text and "muted?" in hint(-90.0)[0].text
    assert "clips" in hint(0.0, 50)[0].text and hint(-12.0) == [] and hint(0.0, 1) == []


def test_package_names_follow_the_distribution(tmp_path: Path) -> None:
    for content, expected in (
        ("ID=debian\n", "sudo apt install libportaudio2"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "sudo apt install libportaudio2"),
        ("ID=fedora\n", "sudo dnf install portaudio"),
        ("ID='rocky'\nID_LIKE='rhel centos fedora'\n", "sudo dnf install portaudio"),
        ("ID=manjaro\nID_LIKE=arch\n", "sudo pacman -S portaudio"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "sudo zypper install libportaudio2"),
        ("ID=haiku\n", "install PortAudio (libportaudio2 or portaudio) with your package manager"),
    ):
        (tmp_path / "os-release").write_text(content)
        assert distro.install_portaudio(tmp_path / "os-release", "linux") == expected
    missing = distro.install_portaudio(tmp_path / "missing", "linux")
    assert "package manager" in missing and distro.install_portaudio(platform="darwin") == "brew install portaudio"
    (tmp_path / "os-release").write_text("ID=ubuntu\nID_LIKE=debian\n")
    assert "intel-opencl-icd" in distro.install_gpu_driver(tmp_path / "os-release")


def test_container_limits(tmp_path: Path) -> None:
    """Both versions of control groups; the strictest of all parents counts."""
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    (root / "a" / "b").mkdir(parents=True)
    membership.write_text("0::/a/b\n")
    assert limits.cpu_quota(root, membership) is None and limits.memory_limit(root, membership) is None
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert limits.cpu_quota(root, membership) is None
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "a" / "b" / "memory.max").write_text(f"{2**30}\n")
    (root / "a" / "memory.max").write_text("max\n")
    assert limits.cpu_quota(root, membership) == 1.5 and limits.memory_limit(root, membership) == 2**30
    old = root / "cpu" / "x"
    old.mkdir(parents=True)
    membership.write_text("2:cpuacct:/y\n1:cpu:/x\n0::/\n")
    (old / "cpu.cfs_quota_us").write_text("-1")
    (old / "cpu.cfs_period_us").write_text("100000")
    assert limits.cpu_quota(root, membership) is None
    (old / "cpu.cfs_quota_us").write_text("50000")
    assert limits.cpu_quota(root, membership) == 0.5
    assert limits.cpu_quota(root, tmp_path / "missing") is None


def test_processor_problems() -> None:
    def texts(**changes: Any) -> list[str]:
        return [p.text for p in cpu.examine(dataclasses.replace(CPU, **changes)).problems]

    assert texts() == []
    assert "the machine has one core" in texts(logical=1, physical=1, usable=1, usable_physical=1)[0]
    assert "limits this process to 1.5 of 8 cores" in texts(quota=1.5)[0]
    assert "one core only" in texts(quota=0.5)[0]
    assert "no AVX2" in texts(isa=("avx",))[0]
    assert "powersave" in texts(governor="powersave acpi-cpufreq")[0]
    assert texts(governor="powersave intel_pstate balance_performance") == []
    assert texts(governor="powersave amd-pstate-epp power") != []


def test_intel_gpu_is_seen_by_its_vendor(tmp_path: Path) -> None:
    assert not engines.intel_gpu(tmp_path)
    for card, vendor in (("card0", "0x10de"), ("card1", "0x8086")):
        (tmp_path / card / "device").mkdir(parents=True)
        (tmp_path / card / "device" / "vendor").write_text(f"{vendor}\n")
        assert engines.intel_gpu(tmp_path) == (vendor == "0x8086")


def test_nothing_personal_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/data/annasmith")
    monkeypatch.setenv("USERPROFILE", "/data/annasmith")
    monkeypatch.setenv("LOGNAME", "annasmith")
    monkeypatch.setenv("USER", "annasmith")
    facts = {
        "paths": ["/data/annasmith/models/x: broken", "/home/bob/y", "C:\\Users\\Carl\\z", "/Users/dora/w, /tmp/ok"],
        "microphones": ["Anna's AirPods", "Mic of ANNASMITH", "USB Audio"],
        "directory": f"{tmp_path}/secret-project/bundle/encoder.onnx: damaged",
        "number": 3,
    }
    problem = Problem("warning", "/data/annasmith/models/x failed", "see /home/bob/log")
    data = as_data([Section("x", facts, [], [problem])], tmp_path / "secret-project" / "bundle")
    text = json.dumps(data)
    for personal in ("annasmith", "bob", "Carl", "dora", "Anna", "ANNASMITH", "secret-project"):
        assert personal not in text, personal
    assert data["sections"]["x"]["paths"][0] == "~/models/x: broken"
    assert data["sections"]["x"]["directory"] == "bundle/encoder.onnx: damaged"
    assert "USB Audio" in text and "/tmp/ok" in text and data["sections"]["x"]["number"] == 3
    assert anonymous("/data/annasmithson/x") == "/data/annasmithson/x", "another name that begins alike"
