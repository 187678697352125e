from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_helpers import speech

from edge.runtime import OptionsError, load_audio
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions


def kaldi_fbank(samples: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float64]:
    """Kaldi's log-mel filter bank written out in float64 from its documentation (feature-window, mel-computations);
    torchaudio.compliance.kaldi.fbank follows the same formula."""
    rate = options.sample_rate
    length, shift = round(rate * options.frame_length_ms / 1000), round(rate * options.frame_shift_ms / 1000)
    fft = 1 << (length - 1).bit_length()
    count = max(0, 1 + (len(samples) - length) // shift)  # snip edges: whole frames only
    index = np.arange(length)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * index / (length - 1))) ** 0.85  # povey

    def mel(hertz: object) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log(1.0 + np.asarray(hertz, np.float64) / 700.0))

    edges = np.linspace(mel(20.0), mel(rate / 2), options.num_mel_bins + 2)
    bins = mel(np.arange(fft // 2) * rate / fft)  # the bin at half the rate is not used
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(0.0, np.minimum(up, down))
    out = np.empty((count, options.num_mel_bins))
    for number in range(count):
        frame = samples[number * shift : number * shift + length].astype(np.float64) * 32768.0
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, fft)[:-1]) ** 2
        out[number] = np.log(np.maximum(bank @ power, np.finfo(np.float32).eps))
    return out


def sweep(rate: int, seconds: float) -> NDArray[np.float32]:
    time = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * (50 * time + (rate / 2 - 100) / (2 * seconds) * time**2)
    return (0.3 * np.sin(phase)).astype(np.float32)


def noise(rate: int, seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, round(rate * seconds)).astype(np.float32)


# float32 sums of 512 products, as Kaldi and torchaudio make them, against float64: relative rounding of 1e-5 or so
# in bins that hold power. A bin 90 dB below its neighbours (a pure sweep has such) holds their rounding noise
# instead, hence the wider limit there. A wrong window, scale or mel formula is off by 0.1 and more.
@pytest.mark.parametrize("rate", [16000, 8000])
def test_noise_equals_the_formula(rate: int) -> None:
    options = FeatureOptions(sample_rate=rate, num_mel_bins=80 if rate == 16000 else 40)
    got = StreamingFbank(options).accept(noise(rate, 1.5))
    expected = kaldi_fbank(noise(rate, 1.5), options)
    assert got.shape == expected.shape == (148, options.num_mel_bins) and got.dtype == np.float32
    assert np.abs(got - expected).max() < 5e-4


def test_sweep_equals_the_formula() -> None:
    options = FeatureOptions()
    got, expected = StreamingFbank(options).accept(sweep(16000, 2.0)), kaldi_fbank(sweep(16000, 2.0), options)
    near = expected > expected.max(axis=1, keepdims=True) - 90 / 10 * np.log(10)
    assert near.mean() > 0.2
    assert np.abs(got - expected)[near].max() < 1e-2


def test_real_speech_equals_the_formula() -> None:
    samples, rate = load_audio(speech())
    options = FeatureOptions()
    assert rate == options.sample_rate
    got, expected = StreamingFbank(options).accept(samples), kaldi_fbank(samples, options)
    assert got.shape == expected.shape and len(got) > 100
    assert np.abs(got - expected).max() < 5e-3 and np.abs(got - expected).mean() < 1e-5


def test_digital_silence_is_the_floor() -> None:
    got = StreamingFbank(FeatureOptions()).accept(np.zeros(16000, np.float32))
    assert np.allclose(got, np.log(np.finfo(np.float32).eps), atol=1e-5)


def test_odd_blocks_give_the_same_bits() -> None:
    samples = noise(16000, 5.0)
    whole = StreamingFbank(FeatureOptions()).accept(samples)
    rng = np.random.default_rng(3)
    fbank, got, at = StreamingFbank(FeatureOptions()), [], 0
    while at < len(samples):
        size = int(rng.choice([0, 1, 7, 159, 160, 401, 2999]))
        got.append(fbank.accept(samples[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate(got), whole)
    assert fbank.frames == len(whole) == 498


def test_frames_returned_earlier_do_not_change() -> None:
    fbank = StreamingFbank(FeatureOptions())
    first = fbank.accept(noise(16000, 1.0))
    before = first.copy()
    for _ in range(5):
        fbank.accept(noise(16000, 1.0)[::-1].copy())
    assert np.array_equal(first, before)


def test_less_than_a_frame_gives_none_and_the_window_is_checked() -> None:
    assert StreamingFbank(FeatureOptions()).accept(np.zeros(399, np.float32)).shape == (0, 80)
    assert StreamingFbank(FeatureOptions()).accept(np.zeros(400, np.float32)).shape == (1, 80)
    with pytest.raises(OptionsError, match=r"features\.window: expected one of povey"):
        StreamingFbank(FeatureOptions(window="kaiser"))


def test_dither_turns_digital_silence_into_faint_noise_and_can_be_repeated() -> None:
    options = FeatureOptions(dither=1.0)
    silence = np.zeros(16000, np.float32)
    whole = StreamingFbank(options).accept(silence)
    stream = StreamingFbank(options)
    parts = np.concatenate([stream.accept(silence[i : i + 777]) for i in range(0, 16000, 777)])
    np.testing.assert_array_equal(whole, parts)
    # A windowed, pre-emphasised frame of unit noise: the mean power of a bin is the sum of its weights times the
    # energy of the window, so independent noise of the same size must give the same average.
    other = np.random.default_rng(5).normal(0, 1 / 32768, 320000).astype(np.float32)
    expected = np.exp(StreamingFbank(FeatureOptions()).accept(other).astype(np.float64)).mean(0)
    found = np.exp(StreamingFbank(options).accept(np.zeros(320000, np.float32)).astype(np.float64)).mean(0)
    # Two averages over about 800 independent windows of a power whose deviation is at most its mean: 5 % each.
    np.testing.assert_allclose(found[20:], expected[20:], rtol=0.2)
    assert StreamingFbank(FeatureOptions()).accept(silence).max() < -15.9
