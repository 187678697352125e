"""What to call two bundles that are compared."""

from __future__ import annotations

from edge.runtime.engines.config import EngineConfig


def engine_names(first: EngineConfig, second: EngineConfig) -> tuple[str, str]:
    """How to tell two engines apart, ``("", "")`` when they are the same."""
    return ("", "") if first.same_engine(second) else (first.title, second.title)


def bundle_names(
    bundle: str, bundle_scheme: str, baseline: str, baseline_scheme: str, engines: tuple[str, str] = ("", "")
) -> tuple[str, str]:
    """What to call two bundles: by name, else by scheme, and by ``engines`` if these differ; else by role."""
    if bundle != baseline:
        found = bundle, baseline
    elif bundle_scheme != baseline_scheme:
        found = bundle_scheme, baseline_scheme
    else:
        return engines if any(engines) else ("bundle", "baseline")
    return (f"{found[0]}, {engines[0]}", f"{found[1]}, {engines[1]}") if any(engines) else found
