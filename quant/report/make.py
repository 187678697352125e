"""``u2edge report``: everything about one bundle on one page, from which a person decides whether to ship it.

What is not measured yet is measured, and kept in ``<out>/measurements`` under the checksums of the bundles and the
audio, so that an interrupted or repeated report goes on where it stopped.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration.corpus import Utterance, read_corpus
from calibration.profile import Profile, ProfileError
from edge.runtime.bundle import Bundle, sha256
from edge.runtime.manifest import Manifest
from quant.measure.agreement import Agreement, check_comparable
from quant.measure.bench.machine import bundle_id, machine, versions
from quant.report.commands import commands
from quant.report.data import Verdict, coverage, decide, rule_of, sizes
from quant.report.html import render
from quant.report.measurements import PARTS, ReportError, Request, Say, Store, write
from quant.schemes.registry import SCHEMES

SCHEMA_VERSION = 1


def make_report(request: Request, say: Say = lambda line: None) -> tuple[Verdict, Path]:
    """Measure what is missing, write ``report.json`` and ``report.html``.

    Args:
        request: see Request.
        say: called with one line per step.

    Returns:
        The verdict, and the page.

    Raises:
        ReportError: bundles, profile or measurements that do not belong together.
        EdgeError: as the measurements.
    """
    unknown = sorted(request.skip - set(PARTS))
    if unknown:
        raise ReportError(f"--skip: expected some of {', '.join(PARTS)}, found {unknown[0]!r}")
    baseline, bundle = Bundle.open(request.baseline), Bundle.open(request.bundle)
    check_comparable(baseline, bundle)
    profile = _profile(request, bundle.manifest)
    corpus = _corpus(request)
    store = Store(request, baseline, bundle, corpus, say)
    wer = _given(request.wer, baseline, bundle, "wer") or store.wer()
    bench = _given(request.bench, baseline, bundle, "bench") or store.bench()
    agreement = store.agreement()
    sensitivity = store.sensitivity(profile)
    parts = {"wer": wer, "bench": bench, "agreement": agreement, "sensitivity": sensitivity}
    try:
        verdict, data = _assemble(request, baseline, bundle, profile, corpus, parts)
        page = render(data, verdict)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        named = ", ".join(str(p) for p in (request.wer, request.bench) if p) or str(request.out / "measurements")
        raise ReportError(
            f"{named}: expected measurements of this version, found others ({type(error).__name__}: {error}); "
            "measure again with u2edge wer --json and u2edge bench --json"
        ) from error
    write(request.out / "report.json", json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write(request.out / "report.html", page)
    return verdict, request.out / "report.html"


def _assemble(
    request: Request,
    baseline: Bundle,
    bundle: Bundle,
    profile: Profile | None,
    corpus: Sequence[Utterance],
    parts: dict[str, dict[str, Any] | None],
) -> tuple[Verdict, dict[str, Any]]:
    """The content of report.json."""
    manifest, size = bundle.manifest, sizes(baseline, bundle)
    wer, bench, agreement = parts["wer"], parts["bench"], parts["agreement"]
    routes = None if agreement is None else Agreement.from_dict(agreement)
    verdict = decide(wer, routes, size, bench, manifest.source.parameters)
    return verdict, {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "summary": {
            "verdict": verdict.word,
            "why": verdict.why,
            "level": verdict.level,
            "bars": {bar.key: asdict(bar) for bar in verdict.bars},
        },
        "names": [_name(baseline.manifest), _name(manifest)],
        "model": _describe(manifest),
        "bundle": asdict(bundle_id(bundle)),
        "baseline": asdict(bundle_id(baseline)),
        "size": size,
        "corpus": wer["corpus"] if wer else _heard(request, corpus, agreement),
        **parts,
        "wer": None if wer is None else {k: v for k, v in wer.items() if k != "utterances"},
        "coverage": None if profile is None else coverage(profile, rule_of(manifest.calibration)),
        "calibration": manifest.calibration,
        "commands": commands(request, baseline.manifest, manifest, wer, bench),
        "machine": machine(),
        "versions": versions() | manifest.tools,
    }


def _corpus(request: Request) -> list[Utterance]:
    chosen = request.selection
    if chosen is None or not chosen.manifests:
        return []
    return read_corpus(chosen.manifests, chosen.split, chosen.limit, chosen.match)


def _profile(request: Request, manifest: Manifest) -> Profile | None:
    if request.profile is None:
        return None
    profile = Profile.load(request.profile)
    try:
        profile.check_checkpoint(manifest.source.sha256, manifest.source.checkpoint or "the bundle's checkpoint")
    except ProfileError as error:
        raise ReportError(f"{request.profile}: {error}") from None
    made_with = (manifest.calibration.get("profile") or {}).get("sha256")
    if made_with and made_with != sha256(request.profile):
        raise ReportError(
            f"{request.profile}: expected the profile that the bundle was made with ({made_with[:12]}), found "
            f"{sha256(request.profile)[:12]}; name that one, or quantize again with this one"
        )
    return profile


def _given(path: Path | None, baseline: Bundle, bundle: Bundle, kind: str) -> dict[str, Any] | None:
    """A measurement that u2edge wer or bench wrote, of these very bundles."""
    if path is None:
        return None
    command = f"u2edge {kind} --bundle {bundle.directory} --baseline {baseline.directory} --json {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ids = [data[key]["sha256"] if data[key] else None for key in ("baseline", "bundle")]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path}: expected what {command} writes, found something else ({error})") from None
    if ids != [bundle_id(baseline).sha256, bundle_id(bundle).sha256]:
        raise ReportError(f"{path}: expected a measurement of these two bundles, found one of others; type: {command}")
    return dict(data)


def _heard(request: Request, corpus: Sequence[Utterance], agreement: dict[str, Any] | None) -> dict[str, Any] | None:
    """The corpus as a WerReport describes it, where there is none."""
    if request.selection is None or not corpus:
        return None
    seconds = agreement["seconds"] if agreement else 0.0
    manifests = {str(p): sha256(p / "manifest.jsonl" if p.is_dir() else p) for p in request.selection.manifests}
    return {
        "manifests": manifests,
        "split": request.selection.split,
        "utterances": len(corpus),
        "words": sum(len(u.text.split()) for u in corpus),
        "seconds": seconds,
        "speakers": len({u.speaker for u in corpus if u.speaker}),
        "skipped": {},
    }


def _name(manifest: Manifest) -> str:
    scheme = manifest.encoder.scheme
    name = SCHEMES[scheme].title if scheme in SCHEMES else {"mixed": "int8 mixed"}.get(scheme, scheme)
    return "fp16 storage" if name == "fp32" and manifest.encoder.storage == "fp16" else name


def _describe(manifest: Manifest) -> str:
    caches, moe = manifest.caches, manifest.moe
    experts = f"{len(moe.layers)} MoE layers of {moe.experts} experts, {moe.active} active" if moe.layers else "dense"
    size = f"{manifest.source.parameters / 1e6:.1f} M parameters"
    return f"{size}, {caches.blocks} blocks of dimension {caches.dim}, {experts}, {manifest.tokens.size} tokens"
