"""WeNet experiment to bundle: both graphs, tokens, manifest, and the proof that they compute the same.

Every conversion runs the new graphs against the torch reference on speech, in full context and chunk by
chunk, and refuses to leave a bundle behind that differs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from edge.export.decoder import decoder_graph
from edge.export.encoder import encoder_graph, moe_layers
from edge.export.graph import stored_as_half
from edge.export.options import DEFAULT_OPTIONS, ExportError, ExportOptions
from edge.export.parity import measure_parity, parity_features
from edge.export.quantization import Quantization
from edge.export.save import save_graph
from edge.model.checkpoint import Experiment, opened
from edge.model.config import ModelConfig
from edge.runtime.bundle import TOKENS, Bundle, write_bundle
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.onnxruntime import OnnxBackend
from edge.runtime.manifest import (
    MAX_POSITIONS,
    CacheShape,
    GraphInfo,
    Manifest,
    MoeOptions,
    RescoringOptions,
    Source,
    StreamOptions,
    TokenOptions,
)
from edge.runtime.tokens import SymbolTable
from edge.system.console import Say, silent
from edge.system.versions import version

TOLERANCE = 1e-3
"""Largest accepted difference of log-probabilities (natural log) between torch and ONNX Runtime, both fp32.
Typical differences are 1e-5; a wrong graph differs by 1e-1 and more."""

ABSURD = 100.0
"""The same for a quantized bundle, whose differences are recorded rather than judged: int8 moves the log-probability
of unlikely tokens by several units. Beyond this (or NaN) something is broken."""


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
    checkpoint: Path | Experiment,
    out: Path,
    options: ConvertOptions = ConvertOptions(),
    report: Say = silent,
    quantization: Quantization | None = None,
) -> Bundle:
    """Convert a WeNet experiment directory (or its final.pt) into the bundle directory ``out``.

    Args:
        checkpoint: as WeNet writes it, or what ``edge.model.checkpoint`` made of it.
        out: the new bundle; appears complete or not at all.
        options: see ConvertOptions.
        report: called with one line per step.
        quantization: float32 when None. Otherwise differences to the float32 checkpoint are recorded, not judged.

    Raises:
        EdgeError: a checkpoint, configuration or output folder that cannot be used; what ``quantization.check`` says.
        ExportError: the graphs do not compute what torch computes.
    """
    experiment = opened(checkpoint)
    config = experiment.config
    features = parity_features(options.audio, config.features)  # before the graphs: this may fail, and they take long
    report(f"{experiment.path}: {experiment.parameters() / 1e6:.1f} M parameters, {describe(config)}")
    for line in experiment.notes:
        report(line)
    if reason := config.encoder.why_not_streaming():
        report(f"full context only: {reason}")
    how = quantization or Quantization("fp32")
    if options.export.storage == "fp16" and not quantization:
        experiment = dataclasses.replace(experiment, weights=_halved(experiment.weights))

    def build(folder: Path) -> Manifest:
        weights = {k: v.numpy() for k, v in experiment.weights.items()}
        report("writing encoder.onnx")
        save_graph(encoder_graph(config, weights, options.export, how.encoder), folder / "encoder.onnx")
        if config.decoder is not None:
            report("writing decoder.onnx")
            save_graph(decoder_graph(config, weights, options.export, how.decoder), folder / "decoder.onnx")
        units = "".join(f"{token} {index}\n" for index, token in enumerate(experiment.tokens))
        (folder / TOKENS).write_text(units, encoding="utf-8")
        manifest = _manifest(experiment, options, how)
        report("comparing the graphs with torch")
        tokens = SymbolTable.parse(units.encode(), TOKENS).joined(experiment.joining)
        bundle = Bundle(folder, manifest, tokens)
        how.check(bundle)
        backend = OnnxBackend.load(bundle, EngineConfig())
        parity = measure_parity(experiment.build(), backend, manifest, features)
        report("largest differences: " + ", ".join(f"{k} {v:.1e}" for k, v in parity.items()))
        worst = max(parity, key=lambda k: math.inf if math.isnan(parity[k]) else parity[k])
        tolerance = ABSURD if quantization else options.tolerance
        if not parity[worst] <= tolerance:  # also when it is NaN
            raise ExportError(
                f"{worst}: ONNX Runtime differs from torch by {parity[worst]:.2e}, expected at most "
                f"{tolerance:.0e}; nothing was written; report it with the train.yaml"
            )
        return dataclasses.replace(manifest, parity=parity)

    return write_bundle(out, build, overwrite=options.overwrite)


def describe(config: ModelConfig) -> str:
    """One line for people: kind, size and experts."""
    e, d = config.encoder, config.decoder
    experts = f"{e.n_expert} experts, {e.n_expert_activated} active" if e.mlp_type == "moe" else "dense"
    if d is None:
        decoding = "CTC only"
    else:
        decoding = f"{d.kind} decoder of {d.num_blocks}{f'+{d.r_num_blocks}' if d.bidirectional else ''} layers"
    return (
        f"{e.kind} {e.num_blocks} x {e.output_size} ({experts}), {e.input_layer}, "
        f"{decoding}, {config.vocab_size} tokens"
    )


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights rounded as fp16 storage rounds them, so that torch and the graphs hold the same numbers."""
    return {k: v.half().float() if stored_as_half(k, v.numpy()) else v for k, v in weights.items()}


def _manifest(experiment: Experiment, options: ConvertOptions, how: Quantization) -> Manifest:
    config = experiment.config
    e, d = config.encoder, config.decoder
    why_not, both = e.why_not_streaming(), d is not None and d.bidirectional
    layers = tuple(moe_layers(e))
    storage = options.export.storage
    tools = {name: version(name) or "unknown" for name in ("u2edge", "torch", "onnx", "onnxruntime")}
    unk = next((i for i, token in enumerate(experiment.tokens) if token == "<unk>"), None)
    return Manifest(
        name=options.name or experiment.path.resolve().name,
        features=dataclasses.replace(config.features, dither=options.dither),
        tokens=TokenOptions(config.vocab_size, config.blank, config.sos, config.eos, unk, experiment.joining),
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
        rescoring=RescoringOptions(both, config.loss.reverse_weight if both else 0.0),
        moe=MoeOptions(layers, e.n_expert, e.n_expert_activated) if layers else MoeOptions(),
        encoder=_graph("encoder.onnx", storage, how, how.encoder is not None),
        decoder=_graph("decoder.onnx", storage, how, how.decoder is not None) if d is not None else None,
        source=Source(experiment.path.resolve().name, experiment.sha256, experiment.parameters()),
        model=config.as_dict(),
        calibration=how.calibration,
        tools=tools,
    )


def _graph(file: str, storage: str, how: Quantization, quantized: bool) -> GraphInfo:
    if not quantized:
        return GraphInfo(file, storage=storage)
    return GraphInfo(file, how.name, storage)
