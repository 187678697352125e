"""What one utterance shows to every layer of a model: the pass of calibration over one recording.

Routing is the model's own: an expert's statistics come from the frames its router sent to it. Beside them, every n-th
frame goes through all experts of a layer (outputs unchanged), for the experts that see too little of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.histogram import ActivationStats
from calibration.profile import WEIGHT_ONE, CalibrationOptions, Header, Profile, Routing
from edge.model.checkpoint import Experiment
from edge.model.config import ModelConfig
from edge.model.feedforward import FeedForward, MoeFeedForward
from edge.model.u2pp import U2pp
from edge.runtime.audio_files import Source, read_resampled
from edge.runtime.errors import AudioError, EdgeError, OptionsError
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from edge.runtime.rescoring import pad_hypotheses
from edge.runtime.search import CtcPrefixBeamSearch

BEAM = 10  # of the CTC search, as the recognizer's default

Frames = NDArray[np.float32]


class CalibrationError(EdgeError, RuntimeError):
    """A model that cannot be calibrated, or a run that cannot be continued."""


def supported_chunks(config: ModelConfig, wanted: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """The passes to make: those of ``wanted`` that the model can run, and a sentence when they differ ('' otherwise).

    Raises:
        OptionsError: a chunk that is neither positive nor -1, or listed twice, or none.
    """
    if not wanted or len(set(wanted)) < len(wanted) or any(chunk < 1 and chunk != -1 for chunk in wanted):
        raise OptionsError(f"--chunk: expected different positive numbers of encoder frames, or -1, found {wanted}")
    encoder = config.encoder
    if reason := encoder.why_not_streaming():
        return (-1,), "" if wanted == (-1,) else f"full context only: {reason}"
    if encoder.static_chunk_size > 0 and not encoder.use_dynamic_chunk:
        static = (encoder.static_chunk_size,)
        return static, "" if wanted == static else f"chunks of {static[0]} frames only: the model was trained for them"
    return wanted, ""


def load_features(audio: Source, options: FeatureOptions, max_seconds: float, right_context: int) -> tuple[Frames, int]:
    """Raw filter bank ``(frames, mel)`` of a recording's first ``max_seconds``, and its samples at the model's rate.

    Raises:
        AudioError: naming the file: unreadable, empty, damaged, not finite, or too short for one encoder frame.
    """
    samples, _ = read_resampled(audio, options.sample_rate, max_seconds)
    features = StreamingFbank(options).accept(samples)
    if len(features) <= right_context:
        least = options.frame_length_ms + right_context * options.frame_shift_ms
        raise AudioError(
            f"{audio}: expected at least {least:.0f} ms of audio, "
            f"found {1000 * len(samples) / options.sample_rate:.0f} ms; leave it out of the manifest"
        )
    return features, len(samples)


class StatisticsCollector:
    """A model with hooks on its layers; one ``collect`` per utterance.

    Left out, as it is never quantized: router gates, depthwise convolutions, norms, embeddings.
    """

    def __init__(self, experiment: Experiment, options: CalibrationOptions) -> None:
        self.options = options
        self.config = experiment.config
        self.features = dataclasses.replace(experiment.config.features, dither=options.dither)
        self.model: U2pp = experiment.build()
        self._header = Header(
            experiment.path.resolve().name, experiment.sha256, options, sample_rate=self.features.sample_rate
        )
        self._begin()
        self._empty: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}, "borrowed": {}, "routing": {}}
        for path, module in self.model.named_modules():
            self._attach(path, module)

    @property
    def header(self) -> Header:
        """Of a profile that saw nothing yet."""
        return self._header

    def load(self, audio: Source) -> tuple[Frames, int]:
        """``load_features`` for this model."""
        return load_features(audio, self.features, self.options.max_seconds, self.config.encoder.right_context)

    def collect(self, name: str, features: Frames, samples: int) -> Profile:
        """The profile of one utterance, which depends on nothing but this utterance.

        Args:
            name: for the profile's list of utterances.
            features: ``(frames, mel)`` float32, raw filter bank.
            samples: of the recording, for the profile's seconds of audio.

        Raises:
            CalibrationError: an activation that is not finite; names layer and utterance.
        """
        self._begin(name)
        with torch.inference_mode():
            for index, chunk in enumerate(self.options.chunks):
                self._pass = index
                self._run(torch.from_numpy(features)[None], chunk)
        header = dataclasses.replace(self._header, utterances=(name,), samples=samples)
        tables = {kind: {**empty, **self._tables[kind]} for kind, empty in self._empty.items()}
        self._begin()
        return Profile(header, **tables)

    def _begin(self, name: str = "") -> None:
        self._utterance, self._pass = name, 0
        self._tables: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}, "borrowed": {}, "routing": {}}
        self._memory: dict[str, Tensor] = {}
        self._last: tuple[Tensor, int, ActivationStats] | None = None

    def _run(self, feats: Tensor, chunk: int) -> None:
        """Encoder and CTC in one mode, then the decoders on what was recognised in that mode."""
        model, config = self.model, self.config
        memory, _ = model.encoder(feats, torch.tensor([feats.size(1)]), chunk)
        if model.decoder is None:
            model.ctc(memory)
            return
        search = CtcPrefixBeamSearch(max(BEAM, self.options.hypotheses), config.blank)
        search.advance(model.ctc(memory)[0].numpy())
        hypotheses = [h.tokens for h in search.nbest()[: self.options.hypotheses]]
        # Hypotheses of one length at a time: nothing is padded, so no padding is counted.
        for length in sorted({len(h) for h in hypotheses}):
            hyps, lens = pad_hypotheses([h for h in hypotheses if len(h) == length], config.sos, config.eos)
            model.forward_attention_decoder(torch.from_numpy(hyps), torch.from_numpy(lens), memory)

    def _attach(self, path: str, module: nn.Module) -> None:
        """Register what belongs on this module, and its empty statistics: every profile lists the same layers."""
        name = path.rpartition(".")[2]
        if isinstance(module, MoeFeedForward):
            passes, experts = len(self.options.chunks), len(module.experts)
            zeros = np.zeros((passes, experts), np.int64)
            self._empty["routing"][path] = Routing(zeros, zeros, np.zeros(passes, np.int64), module.active)
            for expert in range(experts):
                for layer in ("w_1", "w_2"):
                    self._empty["borrowed"][f"{path}.experts.{expert}.{layer}"] = ActivationStats.empty()
            module.register_forward_pre_hook(lambda m, args: self._see_moe(path, m, args[0]))
        elif isinstance(module, nn.Linear) and name != "gate":
            self._empty["inputs"][path] = ActivationStats.empty()
            module.register_forward_pre_hook(lambda m, args: self._see("inputs", path, args[0], rows=-1))
        elif isinstance(module, nn.Conv1d) and module.groups == 1 and module.kernel_size == (1,):
            self._empty["inputs"][path] = ActivationStats.empty()
            module.register_forward_pre_hook(lambda m, args: self._see("inputs", path, args[0], rows=2))
        elif isinstance(module, nn.Conv2d):
            self._empty["inputs"][path], self._empty["outputs"][path] = (
                ActivationStats.empty(),
                ActivationStats.empty(),
            )
            module.register_forward_pre_hook(lambda m, args: self._see("inputs", path, args[0], rows=2))
        elif isinstance(module, nn.ReLU) and path.startswith("encoder.embed.conv."):
            convolution = f"encoder.embed.conv.{int(name) - 1}"  # WeNet: convolution and ReLU in turn
            module.register_forward_hook(lambda m, args, out: self._see("outputs", convolution, out, rows=2))

    def _see(self, kind: str, path: str, x: Tensor, rows: int) -> None:
        """Add ``x`` to the statistics of a layer. ``rows`` is the axis that counts; -1: all but the last."""
        if ".src_attn.linear_" in path:
            # The encoder's output comes once per length of hypotheses, and is counted once per pass.
            if self._memory.get(path) is x:
                return
            self._memory[path] = x
        if self._last is None or self._last[0] is not x or self._last[1] != rows:
            count = x.numel() // x.size(-1) if rows < 0 else x.size(rows)
            self._last = (x, rows, self._statistics(path, x, count))  # query, key and value share one input
        self._add(kind, path, self._last[2])

    def _see_moe(self, path: str, module: nn.Module, x: Tensor) -> None:
        """Add one call of a mixture of experts: its routing, and what all its experts would have seen."""
        assert isinstance(module, MoeFeedForward)
        frames = x.reshape(-1, x.size(-1))
        counts, weights = route(module, frames)
        tables = [np.zeros((len(self.options.chunks), len(counts)), np.int64) for _ in range(2)]
        tables[0][self._pass], tables[1][self._pass] = counts, weights
        rows = np.zeros(len(self.options.chunks), np.int64)
        rows[self._pass] = len(frames)
        self._add("routing", path, Routing(tables[0], tables[1], rows, module.active))
        some = frames[:: self.options.all_experts_every]
        statistics = self._statistics(path, some, len(some))
        for index, expert in enumerate(module.experts):
            assert isinstance(expert, FeedForward)
            hidden = expert.activation(expert.w_1.forward(some))  # not expert.w_1(...): its hook counts routed frames
            name = f"{path}.experts.{index}"
            self._add("borrowed", f"{name}.w_1", statistics)
            self._add("borrowed", f"{name}.w_2", self._statistics(f"{name}.w_2", hidden, len(some)))

    def _statistics(self, path: str, x: Tensor, rows: int) -> ActivationStats:
        statistics = ActivationStats.of(x.numpy(), rows)
        if statistics.seen and not (np.isfinite(statistics.low) and np.isfinite(statistics.high)):
            raise CalibrationError(
                f"{path}: expected finite activations, found {statistics.low} to {statistics.high} for "
                f"{self._utterance}; the model overflows on this recording: listen to it, and check that "
                "train.yaml fits the checkpoint"
            )
        return statistics

    def _add(self, kind: str, path: str, value: Any) -> None:
        table = self._tables[kind]
        table[path] = table[path] + value if path in table else value


def route(module: MoeFeedForward, frames: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames per expert and sums of routing weights per expert in units of 1 / WEIGHT_ONE, both (experts,), for
    ``frames (n, dim)``. Each weight is rounded before it is added, so that sums do not depend on the order."""
    chosen, weights = (part.reshape(-1) for part in module.route(frames))
    counts = torch.bincount(chosen, minlength=len(module.experts))
    fixed = (weights.double() * WEIGHT_ONE).round().long()
    sums = torch.zeros(len(module.experts), dtype=torch.int64).index_add(0, chosen, fixed)
    return counts.numpy(), sums.numpy()


class RoutingCounter:
    """Counts the frames per encoder expert, and nothing else: a quick look at an utterance."""

    def __init__(self, model: U2pp, chunks: tuple[int, ...]) -> None:
        self.model, self.chunks = model, chunks
        self._counts: dict[str, NDArray[np.int64]] = {}
        self.layers: dict[str, int] = {}
        for path, module in self.model.encoder.named_modules(prefix="encoder"):
            if isinstance(module, MoeFeedForward):
                self.layers[path] = len(module.experts)
                module.register_forward_pre_hook(self._hook(path))

    def _hook(self, path: str) -> Callable[[nn.Module, Any], None]:
        def see(module: nn.Module, args: Any) -> None:
            assert isinstance(module, MoeFeedForward)
            frames = args[0].reshape(-1, args[0].size(-1))
            self._counts[path] = self._counts[path] + route(module, frames)[0]

        return see

    def count(self, features: Frames) -> NDArray[np.int64]:
        """(layers, experts) of one utterance, all passes together; ``features (frames, mel)``."""
        self._counts = {path: np.zeros(experts, np.int64) for path, experts in self.layers.items()}
        with torch.inference_mode():
            feats = torch.from_numpy(features)[None]
            for chunk in self.chunks:
                self.model.encoder(feats, torch.tensor([len(features)]), chunk)
        return np.stack(list(self._counts.values()))
