"""Errors as one line for people."""

from __future__ import annotations

from edge.runtime import EdgeError


def line(error: BaseException) -> str:
    """Its text; with the kind of error where it was not raised on purpose."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EdgeError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
