"""Views of the window by themselves: what they show of results made here."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from window_helpers import BUNDLE, INT8, result  # first: it skips where Qt is missing

# isort: split
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication

from demo.window.app import make_application
from demo.window.compare import CompareView
from demo.window.differences import Comparison, align
from demo.window.discover import bundles
from demo.window.display import problem
from demo.window.experts_view import short_names
from demo.window.lines import Feed, line_of
from demo.window.theme import DARK, LIGHT, Look, Theme
from demo.window.transcript_view import TranscriptView


@pytest.fixture(scope="session")
def qapp() -> QApplication:
    """pytest-qt's, as the program makes it."""
    return make_application()


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, Look.DARK)


def test_finals_are_firm_and_partials_grey_and_slanted(qtbot: Any, theme: Theme) -> None:
    view = TranscriptView("t")
    qtbot.addWidget(view)
    view.set_palette(DARK)
    view.resize(600, 300)
    view.show()
    view.show_lines([line_of(result("one two", confidence=0.99)), line_of(result("three", 900.0, final=False))])

    def shape(block: int) -> tuple[bool, str]:
        cursor = view.textCursor()
        cursor.setPosition(view.document().findBlockByNumber(block).position() + 1)
        return cursor.charFormat().fontItalic(), cursor.charFormat().foreground().color().name()

    assert shape(0) == (False, DARK.text)
    assert shape(1) == (True, DARK.muted)
    view.show_lines([line_of(result("one two", confidence=0.99)), line_of(result("three", 900.0, confidence=0.2))])
    assert shape(1) == (False, DARK.text)
    cursor = view.textCursor()
    cursor.setPosition(view.document().findBlockByNumber(1).position() + 1)
    assert cursor.charFormat().background().color().name() == QColor(DARK.tint(3)).name(), "an unsure word is shaded"


def test_differences_are_marked_and_rows_stay_level(qtbot: Any, theme: Theme) -> None:
    view = CompareView()
    qtbot.addWidget(view)
    view.set_palette(LIGHT)
    view.resize(500, 400)
    view.show()
    long = " ".join(["seven"] * 30)
    for lane, texts in ((0, ("one two three", long, "nine")), (1, ("one too three four", "seven", "nine"))):
        for i, text in enumerate(texts):
            view.take(lane, dataclasses.replace(result(text, 10000.0 * i), end_ms=10000.0 * i + 9000))
    assert view.count() == (4 + 30 + 1, 2 + 29)
    marked = [[w.text for w in v.lines[0].words if w.differs] for v in view.views]
    assert marked == [["two"], ["too", "four"]]
    qtbot.wait(50)
    layouts = [v.document().documentLayout() for v in view.views]
    for row in range(3):
        tops = [
            layout.blockBoundingRect(v.document().findBlockByNumber(row)).top()
            for layout, v in zip(layouts, view.views, strict=True)
        ]
        assert abs(tops[0] - tops[1]) <= 1, f"row {row} begins at {tops}"
    cursor = view.views[0].textCursor()
    cursor.setPosition(5)
    assert cursor.charFormat().background().color().name() == LIGHT.difference and cursor.charFormat().fontUnderline()


def test_alignment_is_the_cheapest() -> None:
    """Against all alignments of short sequences, made by brute force."""

    def brute(a: tuple[str, ...], b: tuple[str, ...]) -> int:
        best = len(a) + len(b)
        for n in range(min(len(a), len(b)) + 1):
            for i in itertools.combinations(range(len(a)), n):
                for j in itertools.combinations(range(len(b)), n):
                    wrong = sum(a[x] != b[y] for x, y in zip(i, j, strict=True))
                    best = min(best, wrong + len(a) - n + len(b) - n)
        return best

    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = (tuple(rng.choice(list("xyz"), rng.integers(0, 6))) for _ in range(2))
        pairs = align(a, b)
        assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
        assert [j for _, j in pairs if j is not None] == list(range(len(b)))
        assert sum(i is None or j is None or a[i] != b[j] for i, j in pairs) == brute(a, b)


def test_utterances_cut_differently_share_a_row() -> None:
    comparison = Comparison()
    comparison.heading("a.wav")
    comparison.take(0, result("one two three four", 0.0, final=False))
    comparison.take(1, result("one two", 0.0))
    comparison.take(1, result("three four", 600.0))
    comparison.take(0, result("one two three four", 0.0))
    left, right = comparison.lines()
    assert [line.text for line in left] == ["a.wav", "one two three four"]
    assert [line.text for line in right] == ["a.wav", "one two three four"]
    assert comparison.count() == (4, 0)
    comparison.take(0, result("only here", 5000.0))
    assert comparison.count() == (4, 0), "the other lane may still say something"
    for lane in (0, 1):
        comparison.take(lane, result("end", 9000.0))
    assert comparison.count() == (7, 2)


def test_scrolling_up_stops_following(qtbot: Any, theme: Theme) -> None:
    view, feed = TranscriptView("t"), Feed()
    qtbot.addWidget(view)
    view.resize(400, 200)
    view.show()
    bar = view.verticalScrollBar()
    for i in range(30):
        feed.finish(result(f"utterance {i}", 1000.0 * i))
        view.show_lines(feed.shown)
    assert bar.value() == bar.maximum() > 0
    bar.setValue(bar.maximum() // 2)
    kept = bar.value()
    feed.finish(result("more", 40000.0))
    view.show_lines(feed.shown)
    assert bar.value() == kept and not view.following
    view.scroll_to_latest()
    assert bar.value() == bar.maximum()
    for i in range(600):
        feed.finish(result(f"later {i}", 50000.0 + 1000.0 * i))
        view.show_lines(feed.shown)
    assert view.document().blockCount() == len(view.lines) == 400, "the document is bounded"
    assert view.document().toPlainText().splitlines() == [line.text for line in feed.lines]


def test_only_bundles_of_the_same_checkpoint_are_offered(tmp_path: Path) -> None:
    for name, source in (("a", BUNDLE), ("b", INT8), ("other", BUNDLE)):
        (tmp_path / name).mkdir()
        text = (source / "manifest.json").read_text()
        if name == "other":
            text = text.replace('"sha256": "', '"sha256": "0')
        (tmp_path / name / "manifest.json").write_text(text)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert [(b.path.name, b.label) for b in bundles(tmp_path / "b")] == [("a", "fp32"), ("b", "int8")]


def test_layers_have_short_names() -> None:
    paths = ["encoder.encoders.0.feed_forward_macaron", "encoder.encoders.11.feed_forward"]
    assert short_names(paths) == ["1 macaron", "12 ffn"]


def test_missing_display_is_named() -> None:
    assert problem() == ""
    former = os.environ.pop("QT_QPA_PLATFORM")
    display = {key: os.environ.pop(key) for key in ("DISPLAY", "WAYLAND_DISPLAY") if key in os.environ}
    try:
        os.environ["QT_QPA_PLATFORM"] = "no-such-platform"
        assert "Qt" in problem()
    finally:
        os.environ["QT_QPA_PLATFORM"] = former
        os.environ.update(display)
