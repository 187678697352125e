"""Several channels to one, against sums that can be written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edge.runtime import DecodeOptions, Recognizer
from edge.runtime.channels import ChannelMixer
from edge.system.assets import default_bundle, sample_files

RATE = 16000
SPEECH = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)


def mixed(mixer: ChannelMixer, *channels: NDArray[np.float32], block: int = 800) -> NDArray[np.float32]:
    whole = np.stack(channels, axis=1)
    return np.concatenate([mixer.accept(whole[i : i + block]) for i in range(0, len(whole), block)])


def test_ordinary_stereo_is_averaged() -> None:
    for other in (SPEECH, 0.5 * SPEECH, np.zeros_like(SPEECH), np.roll(SPEECH, 7)):
        mixer = ChannelMixer(RATE)
        assert np.array_equal(mixed(mixer, SPEECH, other), (SPEECH + other) * np.float32(0.5))
        assert mixer.taken is None and mixer.told() == ""


def test_opposite_phase_takes_a_channel_from_the_first_block_on() -> None:
    mixer = ChannelMixer(RATE)
    assert np.array_equal(mixed(mixer, SPEECH, -0.9 * SPEECH), SPEECH)
    assert mixer.taken == 1 and "channel 1 of 2 is heard alone" in mixer.told()


@pytest.mark.parametrize("live", [0, 2, 7])
def test_one_live_channel_of_eight(live: int) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-4, (8, len(SPEECH))).astype(np.float32)
    noise[live, RATE:] += SPEECH[RATE:]  # it begins to speak after a second
    mixer = ChannelMixer(RATE)
    assert np.array_equal(mixed(mixer, *noise)[RATE:], noise[live][RATE:])
    assert mixer.taken == live + 1


def test_another_channel_that_begins_to_speak_is_followed() -> None:
    channels = np.zeros((4, 20 * RATE), np.float32)
    long = np.random.default_rng(2).normal(0, 0.1, 20 * RATE).astype(np.float32)
    channels[1, : 10 * RATE], channels[3, 10 * RATE :] = long[: 10 * RATE], long[10 * RATE :]
    found = mixed(ChannelMixer(RATE), *channels)
    assert np.array_equal(found[: 10 * RATE], long[: 10 * RATE])
    assert np.array_equal(found[12 * RATE :], long[12 * RATE :])  # two seconds later at most


def test_silence_decides_nothing() -> None:
    mixer = ChannelMixer(RATE)
    mixed(mixer, np.zeros_like(SPEECH), np.zeros_like(SPEECH))
    assert mixer.taken is None


def test_a_channel_that_was_asked_for() -> None:
    mixer = ChannelMixer(RATE, channel=2)
    assert np.array_equal(mixed(mixer, SPEECH, -SPEECH), -SPEECH) and mixer.told() == ""
    with pytest.raises(ValueError, match="expected 1 to 1, found 2"):
        mixer.accept(SPEECH[:, None])


def test_a_recording_of_opposite_phase_is_recognised(tmp_path: Path) -> None:
    sample = sample_files()[0]
    samples, rate = soundfile.read(sample, dtype="float32")
    six = np.zeros((len(samples), 6), np.float32)
    six[:, 4] = samples
    soundfile.write(tmp_path / "minus.wav", np.stack([samples, -samples], axis=1), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "six.wav", six, rate, subtype="FLOAT")
    recognizer = Recognizer.load(default_bundle())
    want = [r.text for r in recognizer.transcribe(sample)]
    assert want and want[0]
    for name in ("minus.wav", "six.wav"):
        assert [r.text for r in recognizer.transcribe(tmp_path / name)] == want
    stream = recognizer.stream(DecodeOptions())
    assert stream.channel_note == ""
    stream.accept(np.stack([samples, -samples], axis=1), rate)
    assert "heard alone" in stream.channel_note
