"""WeNet experiment to bundle: both graphs, tokens, manifest, and the proof that they compute the same.

Every conversion runs the new graphs against the torch reference on speech, in full context and chunk by
chunk, and refuses to leave a bundle behind that differs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge.export.decoder import decoder_graph
from edge.export.encoder import encoder_graph, moe_layers
from edge.export.graph import stored_as_half
from edge.export.options import DEFAULT_OPTIONS, ExportError, ExportOptions
from edge.export.save import save_graph
from edge.model.checkpoint import Experiment, load_experiment
from edge.model.config import ModelConfig
from edge.model.embedding import MAX_POSITIONS
from edge.model.train_yaml import ConfigError
from edge.model.u2pp import U2pp
from edge.runtime.audio import Resampler, read_blocks, to_mono_float
from edge.runtime.backend import Backend, initial_state
from edge.runtime.bundle import TOKENS, Bundle, write_bundle
from edge.runtime.chunker import FrameChunker
from edge.runtime.errors import AudioError
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import (
    CacheShape,
    FeatureOptions,
    GraphInfo,
    Manifest,
    MoeOptions,
    RescoringOptions,
    Source,
    StreamOptions,
    TokenOptions,
)
from edge.runtime.onnx_backend import OnnxBackend
from edge.runtime.tokens import SymbolTable

Report = Callable[[str], None]

TOLERANCE = 1e-3
"""Largest accepted difference of log-probabilities (natural log) between torch and ONNX Runtime, both fp32.
Typical differences are 1e-5; a wrong graph differs by 1e-1 and more."""

_PARITY_S = 20.0  # seconds of audio compared at most
_PARITY_FRAMES = 600  # feature frames compared at least: a few chunks of 16, whatever the subsampling


@dataclass(frozen=True)
class ConvertOptions:
    """What ``u2edge convert`` may choose."""

    export: ExportOptions = DEFAULT_OPTIONS
    name: str = ""  # default: the experiment folder's name
    overwrite: bool = False
    dither: float = 0.0  # noise the recognizer adds, in 16-bit steps; see edge.runtime.features
    reencode: bool = False  # recommend a second pass in full context to the recognizer
    audio: Path | None = None  # speech for the parity check; default: coloured noise
    tolerance: float = TOLERANCE


def convert(
    checkpoint: Path, out: Path, options: ConvertOptions = ConvertOptions(), report: Report = lambda line: None
) -> Bundle:
    """Convert a WeNet experiment directory (or its final.pt) into the bundle directory ``out``.

    Args:
        checkpoint: as WeNet writes it; see ``edge.model.checkpoint``.
        out: the new bundle; appears complete or not at all.
        options: see ConvertOptions.
        report: called with one line per step.

    Raises:
        EdgeError: a checkpoint, configuration or output folder that cannot be used.
        ExportError: the graphs do not compute what torch computes.
    """
    experiment = load_experiment(checkpoint)
    config = experiment.config
    features = _features(options.audio, config.features)  # before the graphs: this may fail, and they take long
    report(f"{experiment.path}: {experiment.parameters() / 1e6:.1f} M parameters, {describe(config)}")
    if reason := config.encoder.why_not_streaming():
        report(f"full context only: {reason}")
    if options.export.storage == "fp16":
        experiment = dataclasses.replace(experiment, weights=_halved(experiment.weights))

    def build(folder: Path) -> Manifest:
        weights = {k: v.numpy() for k, v in experiment.weights.items()}
        report("writing encoder.onnx")
        save_graph(encoder_graph(config, weights, options.export), folder / "encoder.onnx")
        report("writing decoder.onnx")
        save_graph(decoder_graph(config, weights, options.export), folder / "decoder.onnx")
        units = "".join(f"{token} {index}\n" for index, token in enumerate(experiment.tokens))
        (folder / TOKENS).write_text(units, encoding="utf-8")
        manifest = _manifest(experiment, options)
        report("comparing the graphs with torch")
        tokens = SymbolTable.parse(units.encode(), TOKENS)
        backend = OnnxBackend.load(Bundle(folder, manifest, tokens))
        parity = measure_parity(experiment.build(), backend, manifest, features)
        report("largest differences: " + ", ".join(f"{k} {v:.1e}" for k, v in parity.items()))
        worst = max(parity, key=lambda k: math.inf if math.isnan(parity[k]) else parity[k])
        if not parity[worst] <= options.tolerance:  # also when it is NaN
            raise ExportError(
                f"{worst}: ONNX Runtime differs from torch by {parity[worst]:.2e}, expected at most "
                f"{options.tolerance:.0e}; nothing was written; report it with the train.yaml"
            )
        return dataclasses.replace(manifest, parity=parity)

    return write_bundle(out, build, overwrite=options.overwrite)


def describe(config: ModelConfig) -> str:
    """One line for people: kind, size and experts."""
    e, d = config.encoder, config.decoder
    experts = f"{e.n_expert} experts, {e.n_expert_activated} active" if e.mlp_type == "moe" else "dense"
    decoders = f"{d.num_blocks}+{d.r_num_blocks}" if d.bidirectional else f"{d.num_blocks}"
    return (
        f"{e.kind} {e.num_blocks} x {e.output_size} ({experts}), {e.input_layer}, "
        f"{d.kind} decoder of {decoders} layers, {config.vocab_size} tokens"
    )


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


def _features(audio: Path | None, options: FeatureOptions) -> NDArray[np.float32]:
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
    samples, rate = next(read_blocks(audio, _PARITY_S))
    resampler = Resampler(rate, options.sample_rate)
    speech = np.concatenate([resampler.accept(to_mono_float(samples)), resampler.finish()])
    if not len(speech):
        raise AudioError(f"{audio}: expected speech for the parity check, found {len(samples)} samples at {rate} Hz")
    return fbank.accept(np.tile(speech, math.ceil(least / len(speech))))  # a short recording is repeated


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights rounded as fp16 storage rounds them, so that torch and the graphs hold the same numbers."""
    return {k: v.half().float() if stored_as_half(k, v.numpy()) else v for k, v in weights.items()}


def _version(package: str) -> str:
    """Installed version; 'unknown' when run from a source tree, or when another package provides the module."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _manifest(experiment: Experiment, options: ConvertOptions) -> Manifest:
    config = experiment.config
    e, d = config.encoder, config.decoder
    why_not = e.why_not_streaming()
    layers = tuple(moe_layers(e))
    storage = options.export.storage
    tools = {name: _version(name) for name in ("u2edge", "torch", "onnx", "onnxruntime")}
    unk = next((i for i, token in enumerate(experiment.tokens) if token == "<unk>"), None)
    return Manifest(
        name=options.name or experiment.path.resolve().name,
        features=dataclasses.replace(config.features, dither=options.dither),
        tokens=TokenOptions(config.vocab_size, config.blank, config.sos, config.eos, unk),
        stream=StreamOptions(
            subsampling=e.subsampling,
            right_context=e.right_context,
            streaming=not why_not,
            why_not_streaming=why_not,
            max_chunk=100 // e.subsampling,
            static_chunk=0 if e.use_dynamic_chunk else e.static_chunk_size,
            reencode=options.reencode and not why_not and bool(e.use_dynamic_chunk),
            max_positions=MAX_POSITIONS,
        ),
        caches=CacheShape(e.num_blocks, e.attention_heads, e.head_dim, e.output_size, e.conv_context),
        rescoring=RescoringOptions(d.bidirectional, config.loss.reverse_weight if d.bidirectional else 0.0),
        moe=MoeOptions(layers, e.n_expert, e.n_expert_activated) if layers else MoeOptions(),
        encoder=GraphInfo("encoder.onnx", storage=storage),
        decoder=GraphInfo("decoder.onnx", storage=storage),
        source=Source(experiment.path.resolve().name, experiment.sha256, experiment.parameters()),
        model=config.as_dict(),
        tools=tools,
    )
