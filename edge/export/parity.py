"""Do the graphs compute what torch computes? On speech, in full context, chunk by chunk, and rescoring."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge.model.settings import ConfigError
from edge.model.u2pp import U2pp
from edge.runtime.audio_files import read_resampled
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import Backend, initial_state
from edge.runtime.errors import AudioError
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions, Manifest

_PARITY_S = 20.0  # seconds of audio compared at most
_PARITY_FRAMES = 600  # feature frames compared at least: a few chunks of 16, whatever the subsampling


def measure_parity(
    model: U2pp, backend: Backend, manifest: Manifest, features: NDArray[np.float32]
) -> dict[str, float]:
    """Largest absolute difference of log-probabilities between torch and the graphs, per mode.

    Args:
        model: torch reference, eval mode.
        backend: the graphs, loaded.
        manifest: of the graphs.
        features: (frames, mel) raw filter bank.
    """
    feats = torch.from_numpy(features)[None]
    lengths = torch.tensor([len(features)])
    shape, stream = manifest.caches, manifest.stream
    result: dict[str, float] = {}
    with torch.inference_mode():
        step = backend.step(features, initial_state(shape, -1))
        if not stream.static_chunk:
            memory, _ = model.encoder(feats, lengths)
            result["full"] = _difference(model.ctc(memory)[0], step.log_probs)
        for chunk, left in ((16, -1), (8, 2)) if stream.streaming else ():
            expected = model.ctc(model.encoder.forward_chunk_by_chunk(feats, chunk, left))[0]
            result[f"chunk_{chunk}_{left}"] = _difference(expected, _stream(backend, manifest, features, chunk, left))
        if model.decoder is None:
            return result
        # Hypotheses of different lengths; the tokens need not make sense.
        rng = np.random.default_rng(0)
        lens = np.array([9, 5, 1], np.int64)
        hyps = rng.integers(0, manifest.tokens.size, (3, 9))
        hyps[np.arange(9)[None] >= lens[:, None]] = manifest.tokens.eos
        hyps[:, 0] = manifest.tokens.sos
        expected_scores = model.forward_attention_decoder(
            torch.from_numpy(hyps), torch.from_numpy(lens), torch.from_numpy(step.encoder_out)[None]
        )
        scores = backend.rescore(hyps, lens, step.encoder_out)
        valid = np.arange(9)[None] < lens[:, None]
        for name, want, have in zip(("decoder", "reverse_decoder"), expected_scores, scores):
            if name == "decoder" or manifest.rescoring.bidirectional:
                result[name] = _difference(want[torch.from_numpy(valid)], have[valid])
    return result


def _stream(
    backend: Backend, manifest: Manifest, features: NDArray[np.float32], chunk: int, left: int
) -> NDArray[np.float32]:
    """log_probs (frames, vocab) of the whole input, one chunk at a time."""
    state = initial_state(manifest.caches, left * chunk if left >= 0 else -1)
    chunker = FrameChunker(manifest.stream, chunk, manifest.features.num_mel_bins)
    chunker.push(features)
    outputs = []
    while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
        step = backend.step(window, state)
        outputs.append(step.log_probs)
        state = step.state
    return np.concatenate(outputs)


def _difference(want: torch.Tensor, have: NDArray[np.float32]) -> float:
    return float(np.abs(want.numpy() - have).max()) if want.shape == have.shape else float("inf")


def parity_features(audio: Path | None, options: FeatureOptions) -> NDArray[np.float32]:
    """(frames, mel) of ``audio``, at most 20 s, or of coloured noise when there is none; never less than 600 frames."""
    try:
        fbank = StreamingFbank(options)
    except ValueError as error:  # from kaldi-native-fbank: settings that do not go together
        raise ConfigError(f"train.yaml: dataset_conf.fbank_conf: {error} (found {options})") from None
    least = int((options.frame_length_ms + _PARITY_FRAMES * options.frame_shift_ms) / 1000.0 * options.sample_rate)
    if audio is None:
        rng = np.random.default_rng(0)
        noise = np.cumsum(rng.normal(0, 0.02, least))
        steady = noise - np.convolve(noise, np.ones(201) / 201, mode="same")
        bursts = np.abs(np.sin(np.arange(len(steady)) / options.sample_rate * 6.0))  # syllable-like loudness
        return fbank.accept((0.2 * steady * bursts / np.abs(steady).max()).astype(np.float32))
    speech, seconds = read_resampled(audio, options.sample_rate, _PARITY_S)
    if not len(speech):
        raise AudioError(f"{audio}: expected speech for the parity check, found {1000 * seconds:g} ms")
    return fbank.accept(np.tile(speech, math.ceil(least / len(speech))))  # a short recording is repeated
