"""``u2edge report``: everything about one bundle on one page, from which a person decides whether to ship it.

What is not measured yet is measured, and kept in ``<out>/measurements`` under the checksums of the bundles and the
audio, so that an interrupted or repeated report goes on where it stopped.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from calibration.corpus import Utterance, read_corpus
from calibration.profile import Profile, ProfileError
from edge.runtime.bundle import Bundle, sha256
from edge.runtime.manifest import Manifest
from edge.system.console import Say, silent
from edge.system.files import write_json, write_text
from quant.measure.agreement import Agreement, check_comparable
from quant.measure.bench.machine import bundle_id, machine, versions
from quant.measure.bench.measure import BenchResult
from quant.measure.wer.measure import CorpusInfo, WerReport
from quant.report.commands import commands
from quant.report.content import CalibrationInfo, Report
from quant.report.data import Verdict, coverage, decide, rule_of, sizes
from quant.report.decode import ReportError, decode
from quant.report.html import render
from quant.report.measurements import PARTS, ReportRequest, Store
from quant.schemes.registry import SCHEMES

T = TypeVar("T")


def make_report(request: ReportRequest, say: Say = silent) -> tuple[Verdict, Path]:
    """Measure what is missing, write ``report.json`` and ``report.html``.

    Args:
        request: see ReportRequest.
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
    wer = _given(WerReport, request.wer, baseline, bundle, "wer") or store.wer()
    bench = _given(BenchResult, request.bench, baseline, bundle, "bench") or store.bench()
    agreement = store.agreement()
    sensitivity = store.sensitivity(profile)
    manifest, size = bundle.manifest, sizes(baseline, bundle)
    report = Report(
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        names=(_name(baseline.manifest), _name(manifest)),
        model=_describe(manifest),
        bundle=bundle_id(bundle),
        baseline=bundle_id(baseline),
        size=size,
        corpus=wer.corpus if wer else _heard(request, corpus, agreement),
        wer=wer,
        bench=bench,
        agreement=agreement,
        sensitivity=sensitivity,
        coverage=None if profile is None else coverage(profile, rule_of(manifest.calibration)),
        calibration=decode(CalibrationInfo, manifest.calibration, f"{bundle.directory}: manifest.calibration"),
        calibration_json=manifest.calibration,
        commands=commands(request, baseline.manifest, manifest, wer, bench),
        machine=machine(),
        versions=versions() | manifest.tools,
        verdict=decide(wer, agreement, size, bench, manifest.source.parameters),
    )
    page = render(report)
    write_json(request.out / "report.json", report.to_json())
    write_text(request.out / "report.html", page)
    return report.verdict, request.out / "report.html"


def _corpus(request: ReportRequest) -> list[Utterance]:
    chosen = request.selection
    if chosen is None or not chosen.manifests:
        return []
    return read_corpus(chosen.manifests, chosen.split, chosen.limit, chosen.match)


def _profile(request: ReportRequest, manifest: Manifest) -> Profile | None:
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


def _given(kind: type[T], path: Path | None, baseline: Bundle, bundle: Bundle, name: str) -> T | None:
    """A measurement that u2edge wer or bench wrote, of these very bundles."""
    if path is None:
        return None
    command = f"u2edge {name} --bundle {bundle.directory} --baseline {baseline.directory} --json {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ids = [data[key]["sha256"] if data[key] else None for key in ("baseline", "bundle")]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path}: expected what {command} writes, found something else ({error})") from None
    if ids != [bundle_id(baseline).sha256, bundle_id(bundle).sha256]:
        raise ReportError(f"{path}: expected a measurement of these two bundles, found one of others; type: {command}")
    return decode(kind, data, str(path))


def _heard(request: ReportRequest, corpus: Sequence[Utterance], agreement: Agreement | None) -> CorpusInfo | None:
    """The corpus as a WerReport describes it, where there is none."""
    chosen = request.selection
    if chosen is None or not corpus:
        return None
    return CorpusInfo(
        manifests={str(p): sha256(p / "manifest.jsonl" if p.is_dir() else p) for p in chosen.manifests},
        split=chosen.split,
        limit=chosen.limit,
        match=chosen.match,
        utterances=len(corpus),
        without_text=sum(not u.text.split() for u in corpus),
        words=sum(len(u.text.split()) for u in corpus),
        seconds=agreement.seconds if agreement else 0.0,
        speakers=len({u.speaker for u in corpus if u.speaker}),
        groups={},
        skipped={},
    )


def _name(manifest: Manifest) -> str:
    scheme = manifest.encoder.scheme
    name = SCHEMES[scheme].title if scheme in SCHEMES else {"mixed": "int8 mixed"}.get(scheme, scheme)
    return "fp16 storage" if name == "fp32" and manifest.encoder.storage == "fp16" else name


def _describe(manifest: Manifest) -> str:
    caches, moe = manifest.caches, manifest.moe
    experts = f"{len(moe.layers)} MoE layers of {moe.experts} experts, {moe.active} active" if moe.layers else "dense"
    size = f"{manifest.source.parameters / 1e6:.1f} M parameters"
    return f"{size}, {caches.blocks} blocks of dimension {caches.dim}, {experts}, {manifest.tokens.size} tokens"
