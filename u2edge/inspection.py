"""What ``u2edge inspect`` says: what a bundle is, from its manifest, and whether its files are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.runtime.bundle import MANIFEST, Bundle, sha256
from edge.runtime.errors import BundleError
from edge.runtime.manifest import Manifest, unknown_fields
from edge.runtime.options import supported

_LISTED = 4  # fall-backs shown by name
_MAX_TEXT = 16 << 20  # bytes; a larger file is no manifest
_MB = 2**20


def run(directory: Path, as_json: bool) -> int:
    """Print.

    Returns:
        0, or 1 when the bundle is damaged; what its manifest says is shown anyway.

    Raises:
        BundleError: no manifest that this version can read.
    """
    manifest, broken, unknown = read(directory)
    files = {name: "not checked" for name in manifest.checksums} if broken else check_files(directory, manifest)
    damaged = [name for name, state in files.items() if state != "ok"]
    data = describe(manifest, files, unknown)
    data["ok"] = not broken and not damaged
    data["problem"] = broken or (f"damaged: {', '.join(damaged)}; copy the bundle again" if damaged else "")
    if as_json:
        print(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        for title, text in rows(manifest, data):
            print("".join(c if c.isprintable() else " " for c in f"{title:<14}{text}").rstrip())
    return 0 if data["ok"] else 1


def read(directory: Path) -> tuple[Manifest, str, tuple[str, ...]]:
    """The manifest, what is wrong with the files beside it ("" if nothing; checksums are not compared), and fields that
    this version does not know."""
    path = directory / MANIFEST
    try:
        manifest, broken = Bundle.open(directory, verify=False).manifest, ""
    except BundleError as error:
        # Raised again unless the manifest itself can be read: then it is worth showing.
        try:
            if path.stat().st_size > _MAX_TEXT:
                raise
            manifest, broken = Manifest.from_json(path.read_text(encoding="utf-8")), str(error)
        except (BundleError, OSError, UnicodeDecodeError):
            raise error from None
    return manifest, broken, unknown_fields(path.read_text(encoding="utf-8"))


def check_files(directory: Path, manifest: Manifest) -> dict[str, str]:
    """ "ok" or "damaged" for every file with a checksum."""
    return {
        name: "ok" if sha256(directory / name) == expected else "damaged"
        for name, expected in manifest.checksums.items()
    }


def describe(manifest: Manifest, files: dict[str, str], unknown: tuple[str, ...]) -> dict[str, Any]:
    """Everything for machines."""
    stream, features = manifest.stream, manifest.features
    frame_ms = stream.subsampling * features.frame_shift_ms
    return {
        "name": manifest.name,
        "model": one_liner(manifest),
        "schema_version": manifest.schema_version,
        "graphs": {
            name: {key: getattr(g, key) for key in ("file", "scheme", "storage", "bytes")}
            for name, g in zip(("encoder", "decoder"), manifest.graphs)
        },
        "streaming": {
            "streaming": stream.streaming,
            "why_not": stream.why_not_streaming,
            "frame_ms": frame_ms,
            "static_chunk": stream.static_chunk,
            "max_trained_chunk": stream.max_chunk,
            "full_context": not (stream.static_chunk and stream.streaming),
            "reencode": stream.reencode,
            "max_utterance_ms": stream.max_positions * frame_ms,
            "supported": supported(manifest),
        },
        "tokens": vars(manifest.tokens),
        "features": vars(features),
        "moe": {"layers": list(manifest.moe.layers), "experts": manifest.moe.experts, "active": manifest.moe.active},
        "rescoring": vars(manifest.rescoring),
        "parity": manifest.parity,
        "calibration": manifest.calibration,
        "source": vars(manifest.source),
        "tools": manifest.tools,
        "files": files,
        "unknown_fields": list(unknown),
    }


def one_liner(manifest: Manifest) -> str:
    """Kind, size and experts of the model."""
    encoder, decoder = (
        section if isinstance(section := manifest.model.get(name), dict) else {} for name in ("encoder", "decoder")
    )
    caches, moe = manifest.caches, manifest.moe
    kind = f"{encoder.get('kind', 'encoder')} {caches.blocks} x {caches.dim}, {caches.heads} heads"
    layers = [decoder.get("num_blocks"), decoder.get("r_num_blocks") if manifest.rescoring.bidirectional else None]
    decoders = "+".join(str(count) for count in layers if count)
    parts = [
        f"{manifest.source.parameters / 1e6:.1f} M parameters",
        kind,
        f"{len(moe.layers)} layers of {moe.experts} experts, {moe.active} active" if moe.layers else "dense",
        str(encoder.get("input_layer", f"subsampling {manifest.stream.subsampling}")),
    ]
    if manifest.decoder is None:
        parts.append("CTC only")
    elif decoders:
        parts.append(f"{decoder.get('kind', '')} decoder of {decoders} layers".strip())
    return ", ".join(parts)


def rows(manifest: Manifest, data: dict[str, Any]) -> list[tuple[str, str]]:
    """Title and text, line by line, for people."""
    streaming, features, tokens = data["streaming"], manifest.features, manifest.tokens
    found = [("name", manifest.name), ("model", data["model"])]
    for name, graph in data["graphs"].items():
        how = f"{graph['scheme']}, other weights stored as {graph['storage']}"
        if graph["scheme"] == "fp32":
            how = f"fp32 arithmetic, weights stored as {graph['storage']}"
        found.append((name, f"{how}, {graph['bytes'] / _MB:.2f} MB"))
    found.append(("modes", streaming["supported"].removeprefix("supported: ")))
    if streaming["why_not"]:
        found.append(("", f"cannot stream: {streaming['why_not']}"))
    found.append(("", f"an utterance is cut at {streaming['max_utterance_ms'] / 1000:g} s"))
    rescoring = "left-to-right" + (" and right-to-left" if manifest.rescoring.bidirectional else "")
    weight = f", reverse weight {manifest.rescoring.reverse_weight:g}" if manifest.rescoring.bidirectional else ""
    second = "; recommends a second pass in full context" if streaming["reencode"] else ""
    found.append(("rescoring", f"{rescoring}{weight}{second}"))
    special = f"blank {tokens.blank}, sos {tokens.sos}, eos {tokens.eos}"
    found.append(("tokens", f"{tokens.size} ({special}{'' if tokens.unk is None else f', unk {tokens.unk}'})"))
    found.append(
        (
            "features",
            f"{features.sample_rate} Hz (audio of any rate is resampled), {features.num_mel_bins} mel bins, "
            f"{features.frame_length_ms:g} ms every {features.frame_shift_ms:g} ms, {features.window} window, "
            f"dither {features.dither:g}",
        )
    )
    if manifest.moe.layers:
        first, *rest = manifest.moe.layers
        more = f" to {rest[-1]}" if rest else ""
        found.append(("experts", f"{manifest.moe.experts} x {len(manifest.moe.layers)} layers: {first}{more}"))
    if manifest.parity:
        found.append(("parity", ", ".join(f"{name} {value:.1e}" for name, value in manifest.parity.items())))
        found.append(("", "largest differences of log-probabilities to torch in float32, when it was written"))
    found += [("calibration" if not n else "", text) for n, text in enumerate(calibration(manifest.calibration))]
    source = manifest.source
    found.append(("source", f"{source.checkpoint or 'unknown'}, SHA-256 {source.sha256[:16] or 'unknown'}"))
    found.append(("written by", ", ".join(f"{name} {value}" for name, value in manifest.tools.items()) or "unknown"))
    found.append(("schema", str(manifest.schema_version)))
    if data["unknown_fields"]:
        found.append(("ignored", f"{', '.join(data['unknown_fields'])} (of a newer u2edge)"))
    states = data["files"]
    good = sum(state == "ok" for state in states.values())
    found.append(("checksums", f"OK ({good} files)" if data["ok"] else f"NOT OK: {data['problem']}"))
    return found


def calibration(data: dict[str, Any]) -> list[str]:
    """Where the scales came from, line by line; every field may be missing."""
    if not data:
        return ["none: not quantized"]
    layers = data.get("layers")
    lines = []
    if isinstance(layers, dict):
        lines.append("layers: " + ", ".join(f"{count} {kind}" for kind, count in layers.items()))
    profile = data.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    if profile:
        observed = f", {data['observer']} scales" if data.get("observer") else ""
        lines.append(
            f"profile {str(profile.get('sha256', 'unknown'))[:16]}: {profile.get('utterances', '?')} utterances, "
            f"{profile.get('seconds', '?')} s{observed}"
        )
    coverage = data.get("coverage")
    if isinstance(coverage, dict):
        borrowed = data.get("borrowed")
        count = f"; layers that borrow statistics: {len(borrowed)}" if isinstance(borrowed, list) and borrowed else ""
        lines.append(
            f"experts seen often enough: {coverage.get('covered', '?')} of {coverage.get('experts', '?')}{count}"
        )
    fell = data.get("fell_back")
    if isinstance(fell, dict) and fell:
        named = [
            f"{path} ({why.get('precision')}: {why.get('why')})" if isinstance(why, dict) else path
            for path, why in list(fell.items())[:_LISTED]
        ]
        more = f", and {len(fell) - _LISTED} more" if len(fell) > _LISTED else ""
        lines.append(f"fell back: {', '.join(named)}{more}")
    for where, command in (("calibrated", profile.get("command")), ("quantized", data.get("command"))):
        if command:
            lines.append(f"{where} with: {command}")
    return lines or [", ".join(data)]
