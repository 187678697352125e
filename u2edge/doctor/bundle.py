"""The bundle: whole, readable by this version, and small enough for the memory there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from u2edge.doctor.cpu import Cpu
from u2edge.doctor.section import Problem, Section

_MB = 2**20


def examine(directory: Path, cpu: Cpu | None) -> Section:
    """Open ``directory`` with every checksum compared; ``facts["ok"]`` says whether it can be used."""
    from edge.runtime.bundle import Bundle
    from edge.runtime.errors import EdgeError
    from edge.runtime.manifest import unknown_fields

    try:
        bundle = Bundle.open(directory, verify=True)
    except (EdgeError, OSError) as error:
        text, _, fix = str(error).rpartition("; ")
        problem = Problem("error", text or fix, fix if text else "make one: u2edge convert CKPT -o BUNDLE")
        return Section("bundle", {"ok": False, "failed": str(error)}, ["cannot be used"], [problem])
    manifest = bundle.manifest
    schemes = sorted({graph.scheme for graph in manifest.graphs})
    size = sum(graph.bytes for graph in manifest.graphs)
    unknown = unknown_fields((directory / "manifest.json").read_text(encoding="utf-8"))
    facts: dict[str, Any] = {
        "ok": True,
        "name": manifest.name,
        "schemes": schemes,
        "storage": manifest.encoder.storage,
        "bytes": size,
        "parameters": manifest.source.parameters,
        "checkpoint_sha256": manifest.source.sha256,
        "experts": manifest.moe.experts,
        "active": manifest.moe.active,
        "schema_version": manifest.schema_version,
        "tools": manifest.tools,
        "unknown_fields": list(unknown),
    }
    experts = f", {manifest.moe.experts} experts, {manifest.moe.active} active" if manifest.moe.layers else ""
    lines = [
        f"{manifest.name}: {manifest.source.parameters / 1e6:.1f} M parameters{experts}, {' + '.join(schemes)}, "
        f"{size / _MB:.1f} MB",
        f"{len(manifest.checksums)} files, checksums match",
    ]
    memory = _memory(cpu, manifest)
    problems = [memory] if memory else []
    if unknown:
        text = f"the bundle was written by a newer u2edge; ignored: {', '.join(unknown)}"
        problems.append(Problem("note", text, "pip install --upgrade u2edge"))
    return Section("bundle", facts, lines, problems)


def _memory(cpu: Cpu | None, manifest: Any) -> Problem | None:
    halved = [g.scheme == "fp32" and g.storage == "fp16" for g in manifest.graphs]  # arithmetic is fp32
    size = sum(g.bytes * (2 if half else 1) for g, half in zip(manifest.graphs, halved))
    if cpu is None or cpu.available_mb is None or cpu.available_mb * _MB > 1.2 * size:
        return None
    return Problem(
        "warning",
        f"the bundle needs about {size / 1e9:.1f} GB of memory, {cpu.available_mb / 1024:.1f} GB are available",
        "close other programs, or use an int8 bundle (u2edge quantize)",
    )
