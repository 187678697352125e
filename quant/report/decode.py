"""Measurements as JSON -> the dataclasses that they were written from."""

from __future__ import annotations

from typing import Any, TypeVar

import cattrs

from edge.runtime.errors import EdgeError

T = TypeVar("T")

_CONVERTER = cattrs.Converter(detailed_validation=False)


class ReportError(EdgeError, ValueError):
    """A report that cannot be made as asked."""


def decode(kind: type[T], data: Any, where: str) -> T:
    """``data`` as ``kind``, a dataclass. Fields that it does not have are ignored: of a newer u2edge.

    Args:
        kind: the dataclass.
        data: what ``json.loads`` made of its ``dataclasses.asdict``.
        where: the file, for the message.

    Raises:
        ReportError: a field is missing or of another kind.
    """
    try:
        return _CONVERTER.structure(data, kind)
    except Exception as error:  # cattrs raises what the constructors raise
        raise ReportError(
            f"{where}: expected measurements of this version, found others ({type(error).__name__}: {error}); "
            "measure again with u2edge wer --json and u2edge bench --json"
        ) from error
