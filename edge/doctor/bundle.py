"""The bundle: whole, readable by this version, and what the processor means for its precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.doctor.cpu import Cpu
from edge.doctor.section import Problem, Section

if TYPE_CHECKING:
    from edge.runtime.manifest import GraphInfo

_EIGHT_BIT = ("static", "static16", "dynamic")  # uint8 activations times int8 weights
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
    schemes = sorted({manifest.encoder.scheme, manifest.decoder.scheme})
    size = manifest.encoder.bytes + manifest.decoder.bytes
    unknown = unknown_fields((directory / "manifest.json").read_text(encoding="utf-8"))
    facts: dict[str, Any] = {
        "ok": True,
        "name": manifest.name,
        "schemes": schemes,
        "reduce_range": {"encoder": manifest.encoder.reduce_range, "decoder": manifest.decoder.reduce_range},
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
    graphs = (manifest.encoder, manifest.decoder)
    problems = [problem for problem in (saturation(cpu, graphs), _memory(cpu, manifest)) if problem]
    if unknown:
        text = f"the bundle was written by a newer u2edge; ignored: {', '.join(unknown)}"
        problems.append(Problem("note", text, "pip install --upgrade u2edge"))
    return Section("bundle", facts, lines, problems)


def saturation(cpu: Cpu | None, graphs: Sequence[GraphInfo]) -> Problem | None:
    """The warning for 8-bit products on an x86 processor that sums pairs of them in 16 bits.

    Weights of -64..64 need none: 2 * 255 * 64 fits.
    """
    eight = sorted({graph.scheme for graph in graphs if graph.scheme in _EIGHT_BIT and not graph.reduce_range})
    if cpu is None or not eight or not cpu.x86 or not cpu.isa or cpu.vnni:
        return None
    # ONNX Runtime's session.x64quantprecision=1 would avoid it, but 1.31.1 fails to load these graphs with it
    # ("Attempt to replace the existing tensor").
    scheme = "" if eight == ["static"] else f" --scheme {eight[0]}"
    return Problem(
        "warning",
        f"this processor has no VNNI, and the bundle is {' + '.join(eight)} int8 with weights of -127..127: "
        "uint8 x int8 products are added in pairs in 16 bits, which can saturate and cost accuracy",
        f"quantize again with weights of -64..64, which cannot: u2edge quantize CKPT{scheme} --reduce-range; or use "
        "--scheme weight8, or fp32 (u2edge convert). To see what it costs here: "
        "u2edge wer --bundle INT8 --baseline FP32",
    )


def _memory(cpu: Cpu | None, manifest: Any) -> Problem | None:
    graphs = (manifest.encoder, manifest.decoder)
    size = sum(g.bytes * (2 if g.scheme == "fp32" and g.storage == "fp16" else 1) for g in graphs)  # arithmetic is fp32
    if cpu is None or cpu.available_mb is None or cpu.available_mb * _MB > 1.2 * size:
        return None
    return Problem(
        "warning",
        f"the bundle needs about {size / 1e9:.1f} GB of memory, {cpu.available_mb / 1024:.1f} GB are available",
        "close other programs, or use an int8 bundle (u2edge quantize)",
    )
