"""Chunk length and left context changed by the user while somebody speaks: the same utterance, each word once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from demo_helpers import INT8, PATIENCE_S, Feed, Watched, running, sample, settings, speech, transcribed

from demo.events import Ended, Final, Opened, Partial, Ready
from demo.settings import Settings
from edge.runtime import DecodeOptions, EngineConfig

FIRST = {"reencode": False}  # the text is that of the chunks; a second pass would make good what a change spoils
ALONE = {"rescoring": False}
TEXTS = {0: "seven one three one", 1: "one two six two four"}  # what all constant chunk lengths give


def listening(watched: Watched, feed: Feed) -> None:
    watched.hear(feed)
    watched.kind(Opened)


def switched(watched: Watched, feed: Feed, at: float, changed: Settings) -> list[Any]:
    """Let ``at`` seconds of audio be decoded, change the settings, and return the lanes before."""
    feed.allow(at)
    lanes = watched.session._worker._lanes
    end = time.monotonic() + PATIENCE_S
    while any(lane.position < round(16000 * at) for lane in lanes):
        assert time.monotonic() < end
        time.sleep(0.005)
    watched.session.apply(changed)
    assert [lane.chunk_ms for lane in watched.kind(Ready).lanes] == [changed.chunk_ms] * len(changed.bundles)
    return lanes


@pytest.mark.parametrize(
    ("chunks", "how"),
    [
        ((640, 1280, 320), {}),
        ((640, 1280, 320), FIRST),
        ((640, 1280, 320), ALONE),
        ((160, 1280, 160), FIRST),
        ((1280, 160, 640), ALONE),
    ],
)
@pytest.mark.parametrize("index", TEXTS)
def test_every_word_is_said_once(index: int, chunks: tuple[int, ...], how: dict[str, Any]) -> None:
    chosen = [settings(chunk_ms=float(chunk_ms), **how) for chunk_ms in chunks]
    constant = [transcribed(speech(index), each.decode()) for each in chosen]
    assert [[result.text for result in results] for results in constant] == [[TEXTS[index]]] * 3
    with running(chosen[0]) as watched:
        feed = Feed(speech(index), limit=0.0)
        listening(watched, feed)
        # In "one" and in the second "one"; in "two" and in "six".
        for at, changed in zip((1.05, 2.35) if index == 0 else (1.2, 1.65), chosen[1:]):
            (lane,) = switched(watched, feed, at, changed)
            assert watched.session._worker._lanes == [lane], "it goes on"
            assert lane.position == round(16000 * at) and lane.utterance == 0, "nothing is heard again"
            assert lane.chunk_ms == changed.chunk_ms
        feed.allow(None)
        watched.kind(Ended)
        assert watched.texts() == [TEXTS[index]]
        # Times, against the same lengths without a change: by another length a word may move by a frame or two.
        for word, *others in zip(watched.results()[0].words, *(results[0].words for results in constant)):
            starts = [other.start_ms for other in others]
            assert min(starts) - 80 <= word.start_ms <= max(starts) + 80
        shown = [event.result for event in watched.of(Partial)]
        ends = [result.end_ms for result in shown]
        assert ends == sorted(ends), "time jumped back"
        first_final = next(i for i, event in enumerate(watched.events) if isinstance(event, Final))
        grown = [e.result.text for e in watched.events[:first_final] if isinstance(e, Partial)]
        counts = [len(text.split()) for text in grown]
        assert counts == sorted(counts), "text so far is kept"


def test_both_lanes_of_a_comparison_change() -> None:
    before, after = (settings(compare=INT8, chunk_ms=ms, **FIRST) for ms in (640.0, 160.0))
    with running(before) as watched:
        feed = Feed(speech(0), limit=0.0)
        listening(watched, feed)
        lanes = switched(watched, feed, 1.05, after)
        assert watched.session._worker._lanes == lanes
        assert [lane.chunk_ms for lane in lanes] == [160.0, 160.0]
        feed.allow(None)
        watched.kind(Ended)
        assert watched.texts(0) == watched.texts(1) == [TEXTS[0]]


@pytest.mark.parametrize("change", [{"left_chunks": 2}, {"left_chunks": -1}, {"chunk_ms": 320.0, "left_chunks": 1}])
def test_left_context_changes_where_the_speaker_is(change: dict[str, Any]) -> None:
    with running(settings(left_chunks=1, **FIRST)) as watched:
        feed = Feed(speech(0), limit=0.0)
        listening(watched, feed)
        changed = settings(**{**FIRST, **change})
        lanes = switched(watched, feed, 2.35, changed)
        assert watched.session._worker._lanes == lanes
        left = changed.left_chunks
        assert lanes[0]._stream.plan.left_frames == (-1 if left < 0 else left * lanes[0]._stream.plan.chunk)
        feed.allow(None)
        watched.kind(Ended)
        assert watched.texts() == [TEXTS[0]]


@pytest.mark.parametrize("change", [{"rescoring": False}, {"bundle": INT8}, {"engine": EngineConfig(threads=2)}])
def test_another_recognizer_or_other_rules_hear_the_utterance_again(change: dict[str, Any]) -> None:
    """And they do so with other chunks too."""
    changed = settings(chunk_ms=320.0, **change)
    with running(settings()) as watched:
        feed = Feed(speech(0), limit=0.0)
        listening(watched, feed)
        (lane,) = switched(watched, feed, 1.05, changed)
        (new,) = watched.session._worker._lanes
        assert new is not lane
        feed.allow(None)
        watched.kind(Ended)
        assert watched.results() == transcribed(speech(0), changed.decode(), changed.bundle)


def test_an_overloaded_lane_takes_what_the_user_chooses() -> None:
    """New settings begin at level 0, also in the middle of an utterance that was slowed down."""
    with running(settings(chunk_ms=160.0)) as watched:
        feed = Feed(speech(1), limit=0.0)
        listening(watched, feed)
        (lane,) = watched.session._worker._lanes
        watched.session._worker.post(lambda: lane.change(4))
        switched(watched, feed, 1.2, settings(chunk_ms=320.0))
        assert watched.session._worker._lanes == [lane]
        assert (lane.level, lane.partials, lane.chunk_ms) == (0, True, 320.0)
        assert lane.options == DecodeOptions(chunk_ms=320.0, left_chunks=16)
        feed.allow(None)
        watched.kind(Ended)
        assert watched.texts() == [TEXTS[1]]
        assert any(event.result.text for event in watched.of(Partial))
        assert sample(1).size / 16 < watched.results()[0].end_ms + 200
