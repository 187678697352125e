"""Versions of installed packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable


def version(package: str) -> str:
    """As pip would say it; "" when ``package`` is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those of ``packages`` that are installed."""
    return {name: found for name in packages if (found := version(name))}


def own_version() -> str:
    """Of u2edge; "unknown" when it runs from files that were not installed."""
    return version("u2edge") or "unknown"
