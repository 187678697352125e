"""Streaming log-mel filter bank, equal to WeNet's."""

from __future__ import annotations

import math

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

from edge.runtime.audio import Samples
from edge.runtime.audio_files import Source, read_resampled
from edge.runtime.errors import OptionsError
from edge.runtime.manifest import FeatureOptions

_WINDOWS = ("povey", "hamming", "hanning", "rectangular")


class StreamingFbank:
    """Kaldi log-mel features of a stream, as ``wenet/dataset/processor.py`` ``compute_fbank`` calls
    ``torchaudio.compliance.kaldi.fbank``: samples scaled to 16 bit, no dither, whole frames only, DC removed per
    frame, pre-emphasis 0.97, power spectrum, mel bins from 20 Hz to half the sample rate, natural log floored at
    float32's epsilon.

    ``options.dither`` adds noise before all that, so that digital silence (a muted line, joined recordings) looks
    like a quiet room instead of something no microphone delivers. The noise is the same in every stream: results
    can be repeated.

    A frame depends on its own samples only, so blocks of any size give the same bits as one block. Memory is
    that of one call: finished frames are popped from the extractor.
    """

    def __init__(self, options: FeatureOptions) -> None:
        if options.window not in _WINDOWS:
            raise OptionsError(f"features.window: expected one of {', '.join(_WINDOWS)}, found {options.window!r}")
        self.options = options
        config = knf.FbankOptions()
        frame, mel = config.frame_opts, config.mel_opts
        frame.samp_freq = float(options.sample_rate)
        frame.frame_length_ms = options.frame_length_ms
        frame.frame_shift_ms = options.frame_shift_ms
        frame.window_type = options.window
        frame.dither = 0.0
        frame.preemph_coeff = 0.97
        frame.remove_dc_offset = True
        frame.round_to_power_of_two = True
        frame.snip_edges = True
        mel.num_bins = options.num_mel_bins
        mel.low_freq = 20.0
        mel.high_freq = 0.0  # half the sample rate
        config.use_energy = False
        config.energy_floor = 0.0
        config.use_log_fbank = True
        config.use_power = True
        try:
            self._fbank = knf.OnlineFbank(config)
        except (ValueError, RuntimeError) as error:
            raise OptionsError(f"features: kaldi-native-fbank refuses {options}: {error}") from None
        self._frames = 0
        self._noise = np.random.default_rng(0)

    @property
    def frames(self) -> int:
        """Frames returned so far."""
        return self._frames

    def accept(self, samples: Samples) -> NDArray[np.float32]:
        """Mono samples (n,) float32 in [-1, 1] at the model's rate -> the frames they complete, (m, mel) float32."""
        if len(samples):
            scaled = samples * np.float32(32768.0)
            if self.options.dither:
                noise = self._noise.standard_normal(len(scaled), dtype=np.float32)
                scaled += np.float32(self.options.dither) * noise
            self._fbank.accept_waveform(float(self.options.sample_rate), scaled)
        ready = self._fbank.num_frames_ready
        if ready == self._frames:
            return np.zeros((0, self.options.num_mel_bins), np.float32)
        # get_frame() is a view of the extractor's memory: np.stack copies it before pop() frees it.
        frames = np.stack([self._fbank.get_frame(index) for index in range(self._frames, ready)])
        self._fbank.pop(ready - self._frames)
        self._frames = ready
        return frames


def recording_features(
    path: Source, options: FeatureOptions, longest_s: float = math.inf
) -> tuple[NDArray[np.float32], float]:
    """Features (frames, mel) of a recording's first ``longest_s`` seconds, and how many seconds that is.

    Raises:
        AudioError: a recording that cannot be used; names the file.
        OptionsError: as :class:`StreamingFbank`.
    """
    fbank = StreamingFbank(options)
    samples, seconds = read_resampled(path, options.sample_rate, longest_s)
    return fbank.accept(samples), seconds
