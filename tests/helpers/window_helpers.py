"""What the tests of the window share. Importing it skips the module where Qt is missing."""

from __future__ import annotations

import os

import pytest
from places import ROOT

os.environ["QT_QPA_PLATFORM"] = "offscreen"
try:
    import pyqtgraph  # noqa: F401
    import PySide6.QtWidgets  # noqa: F401
    import pytestqt  # noqa: F401
except ImportError as error:  # a package of Python, or a library of the system such as libEGL
    pytest.skip(f"the window needs PySide6, pyqtgraph, pytest-qt and libEGL: {error}", allow_module_level=True)

from demo.window.transcript_view import TranscriptView
from edge.runtime import Result, Word

SAMPLES = ROOT / "models/reference/samples"
BUNDLE, INT8 = ROOT / "models/reference-bundle", ROOT / "models/reference-int8"
SPOKEN = "two seven eight zero six"  # human-3.flac, 4.4 s


def finals(view: TranscriptView) -> list[str]:
    """Finished utterances on screen."""
    return [line.text for line in view.lines if not line.heading and not line.partial]


def result(text: str, start: float = 0.0, final: bool = True, confidence: float = 0.9) -> Result:
    """Words of 200 ms, one every 300 ms."""
    starts = [start + 300.0 * i for i in range(len(text.split()))]
    words = tuple(Word(w, s, s + 200.0, confidence) for w, s in zip(text.split(), starts, strict=True))
    return Result(text, start, start + 300.0 * len(words), final, 0, confidence, words)
