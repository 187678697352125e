"""Events for whoever draws: what they hold, and that they stay few."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from demo_helpers import Feed, running, sample, settings, speech, transcribed

from demo.events import ExpertLoad, Final, Heard, Notice, Partial, Ready
from demo.session.experts import ExpertWindow, entropy
from demo.session.mailbox import Mailbox
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions


def test_what_is_heard_is_the_spectrogram_and_the_level() -> None:
    audio = sample(0)
    with running(settings()) as watched:
        watched.heard(Feed(audio))
        heard = watched.of(Heard)
        columns = np.concatenate([event.columns for event in heard])
        assert np.array_equal(columns, StreamingFbank(FeatureOptions()).accept(audio))
        wave = np.concatenate([event.wave for event in heard])
        assert len(wave) == len(audio) // 160
        assert np.array_equal(wave[:, 1], audio[: len(wave) * 160].reshape(-1, 160).max(axis=1))
        assert max(event.peak_db for event in heard) == pytest.approx(20 * np.log10(np.abs(audio).max()), abs=1e-4)


def test_nobody_polls_for_long() -> None:
    with running(settings()) as watched:
        session = watched.session
        session.hear(lambda: Feed(np.tile(speech(0), 15)), paced=False)
        end = time.monotonic() + 60
        while len(session.transcript().utterances) < 15 and time.monotonic() < end:
            time.sleep(0.05)
        events = session.poll()
        assert len(events) < 40
        assert sum(isinstance(event, Heard) for event in events) == 1
        assert sum(isinstance(event, Final) for event in events) == 15
        assert sum(isinstance(event, Partial) for event in events) <= 1


def test_the_mailbox_is_bounded_and_in_order() -> None:
    mailbox = Mailbox()
    final = Final(0, transcribed(sample(0), settings().decode())[0], 1.0)
    for index in range(20_000):
        mailbox.put(Heard(np.full((5, 80), index, np.float32), np.zeros((5, 2), np.float32), -20.0, -10.0))
        mailbox.put(Partial(index % 2, final.result, float(index)))
        mailbox.put(Notice("level", str(index)))
        mailbox.put(dataclasses.replace(final, lag_ms=float(index)))
        mailbox.put(Notice("overload", str(index)))
    events = mailbox.take()
    assert len(events) < 210
    heard = next(event for event in events if isinstance(event, Heard))
    assert heard.columns.shape == (3000, 80) and heard.columns[-1, 0] == 19_999
    assert heard.rms_db == pytest.approx(-20.0)
    assert [event.text for event in events if isinstance(event, Notice)] == ["19999", "19999"]
    ages = [event.lag_ms for event in events if isinstance(event, Final)]
    assert ages == sorted(ages) and ages[-1] == 19_999
    assert isinstance(events[-1], Notice), "the last that was put comes last"
    assert mailbox.take() == []


def test_expert_load_is_the_share_of_frames_of_the_last_second() -> None:
    with running(settings(chunk_ms=320.0)) as watched:
        watched.heard(Feed(sample(0)))
        load = watched.of(ExpertLoad)[-1]
        lane = watched.of(Ready)[0].lanes[0]
        assert load.share.shape == (len(lane.moe_layers), lane.experts)
        assert np.allclose(load.share.sum(axis=1), 1.0)
        assert load.share.max() <= 1 / lane.active + 1e-6  # a frame goes to two different experts
        assert ((load.entropy > 0) & (load.entropy <= 1)).all()


def test_expert_window_and_entropy() -> None:
    window = ExpertWindow(1, 4)
    share, flat = window.load()
    assert not share.any() and not flat.any()
    for expert in (0, 1, 2, 3, 3):
        counts = np.zeros((1, 4), np.int64)
        counts[0, expert] = 10
        window.add(counts, 500.0)
    share, _ = window.load()
    assert share.tolist() == [[0, 0, 0, 1]]  # of 2.5 s the last second
    assert entropy(np.array([[5, 5, 5, 5], [9, 0, 0, 0], [1, 1, 0, 0]])) == pytest.approx([1.0, 0.0, 0.5])
