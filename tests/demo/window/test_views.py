"""Views of the window by themselves: what they show of results made here."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from window_helpers import BUNDLE, INT8, result  # first: it skips where Qt is missing

# isort: split
from PySide6.QtCore import QPoint
from PySide6.QtGui import QColor, QTextCursor

from demo.events import Final, Notice, Partial, Severity
from demo.window.compare import CompareView
from demo.window.differences import Comparison, align
from demo.window.discover import bundles
from demo.window.display import problem
from demo.window.experts_view import short_names
from demo.window.lines import MAX_LINES, Feed, line_of
from demo.window.notices import Notices
from demo.window.spectrogram import COLUMNS, MELS, Spectrogram
from demo.window.stage import Stage
from demo.window.theme import DARK, LIGHT, Theme
from demo.window.transcript_view import TranscriptView

pytest_plugins = ("window_fixtures",)


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


def test_the_document_is_bounded_and_nothing_is_lost(qtbot: Any, theme: Theme) -> None:
    """After three times as many utterances as are kept on screen: that many blocks, and a count of the others."""
    stage = Stage()
    qtbot.addWidget(stage)
    stage.set_palette(LIGHT)
    stage.resize(700, 500)
    stage.show()
    view = stage.transcript
    stage.heading("a.wav")
    for i in range(3 * MAX_LINES):
        stage.take(Partial(0, result(f"utterance {i}", 1000.0 * i, final=False), 0.0))
        assert view.document().blockCount() <= MAX_LINES + 1, "one more while it is spoken"
        stage.take(Final(0, result(f"utterance {i}", 1000.0 * i), 0.0))
        assert view.document().blockCount() <= MAX_LINES
    last = [f"utterance {i}" for i in range(2 * MAX_LINES, 3 * MAX_LINES)]
    assert view.document().toPlainText().splitlines() == [line.text for line in view.lines] == last
    assert view.following and view.verticalScrollBar().value() == view.verticalScrollBar().maximum() > 0
    assert stage.earlier.isVisible() and stage.earlier.text() == f"Earlier utterances: {2 * MAX_LINES}"
    stage.clear()
    assert not stage.earlier.isVisible() and view.document().toPlainText() == ""


def test_what_is_being_read_stays_where_it_is_while_lines_leave_above(qtbot: Any, theme: Theme) -> None:
    view, feed = TranscriptView("t"), Feed()
    qtbot.addWidget(view)
    view.resize(400, 200)
    view.show()
    for i in range(MAX_LINES):
        feed.finish(result(f"utterance {i}" * (1 + i % 4), 1000.0 * i))
        view.show_lines(feed.shown)
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum() // 2)
    cursor = view.cursorForPosition(QPoint(60, 60))
    cursor.select(QTextCursor.SelectionType.BlockUnderCursor)
    view.setTextCursor(cursor)
    reading, selected = view.cursorForPosition(QPoint(60, 60)).block().text(), view.selected_text
    assert selected.strip() == reading
    for i in range(20):
        feed.finish(result(f"more {i}", 1000.0 * (MAX_LINES + i)))
        view.show_lines(feed.shown)
        assert view.cursorForPosition(QPoint(60, 60)).block().text() == reading and not view.following
    assert view.selected_text == selected


def test_envelope_of_a_known_wave(qtbot: Any, theme: Theme) -> None:
    """Each pixel column has the lowest and highest sample of exactly its own share of the last 8 s."""
    view = Spectrogram()
    qtbot.addWidget(view)
    view.set_palette(DARK)
    view.resize(700, 200)
    view.show()
    rng = np.random.default_rng(1)
    wave = np.sort(rng.uniform(-0.9, 0.9, (COLUMNS + 50, 2)), axis=1).astype(np.float32)
    for start in range(0, len(wave), 7):
        view.hear(np.zeros((7, MELS), np.float32), wave[start : start + 7])
    shown = wave[50:]
    for pixels in (100, 300, 1600):
        bounds = [i * COLUMNS // pixels for i in range(pixels + 1)]
        cells = [shown[a : max(b, a + 1)] for a, b in itertools.pairwise(bounds)]
        wanted = [(cell[:, 0].min(), cell[:, 1].max()) for cell in cells]
        np.testing.assert_array_equal(view.wave.columns(pixels), np.array(wanted, np.float32))
    left, right = view.wave.span, view.span
    assert abs(left[0] - right[0]) <= 1 and abs(left[1] - right[1]) <= 1, "one time axis"


def test_clipping_is_red_where_it_is(qtbot: Any, theme: Theme) -> None:
    view = Spectrogram()
    qtbot.addWidget(view)
    view.set_palette(DARK)
    view.resize(700, 200)
    view.show()
    wave = np.tile(np.array([[-0.3, 0.3]], np.float32), (COLUMNS, 1))
    wave[COLUMNS // 2 - 20 : COLUMNS // 2 + 20] = -1.0, 1.0
    view.hear(np.zeros((len(wave), MELS), np.float32), wave)
    picture = view.grab().toImage()
    start, end = view.wave.span

    def colours(share: float) -> set[str]:
        x = round(start + share * (end - start))
        return {picture.pixelColor(x, y).name() for y in range(picture.height())}

    assert DARK.error in colours(0.5) and DARK.error not in colours(0.3) | colours(0.7)
    assert DARK.accent in colours(0.3) & colours(0.7)
    view.clear()
    assert DARK.error not in {view.grab().toImage().pixelColor(x, 20).name() for x in range(int(start), int(end))}


def test_a_notice_with_new_numbers_costs_no_new_pictures(qtbot: Any, theme: Theme) -> None:
    """Each QPixmap drawn on keeps references to None (PySide6 6.11.3), and an overload says new numbers for hours."""
    notices = Notices()
    qtbot.addWidget(notices)
    notices.take(Notice("overload", "0 s behind", Severity.WARNING))
    before = sys.getrefcount(None)
    for i in range(500):
        notices.take(Notice("overload", f"{i} s behind", Severity.WARNING))
    assert abs(sys.getrefcount(None) - before) < 100
    assert notices.texts() == {"overload": "499 s behind"}


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
