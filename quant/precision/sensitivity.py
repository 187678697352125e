"""What one part costs: the error of the model when only that layer, or only that expert, is quantized.

Simulated in torch (``simulate``) on a handful of utterances, each in one pass under the mask of its chunks (so a
dynamic scale is that of the utterance, where the runtime has one per chunk). The error is the Kullback-Leibler
divergence of the output distributions from those of the fp32 model, per frame (CTC) or per token (decoders), in nats;
beside it the routing of the later mixtures of experts: a part can leave its own output nearly untouched and still tip
a router.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.corpus import Utterance
from edge.model.checkpoint import Experiment
from edge.model.feedforward import MoeFeedForward
from edge.model.u2pp import U2pp
from edge.runtime.errors import AudioError
from edge.runtime.features import recording_features
from edge.runtime.search import CtcPrefixBeamSearch
from quant.precision.plan import QuantizationPlan
from quant.precision.sensitivity_result import ExpertError, PartError, Sensitivity
from quant.precision.simulate import simulated

HYPOTHESES = 4
"""Of the fp32 model's own n-best that the decoders score, per utterance."""

Progress = Callable[[int, int], None]
"""Called with parts done and parts in all."""


def measure_sensitivity(
    experiment: Experiment,
    plan: QuantizationPlan,
    utterances: Sequence[Utterance],
    *,
    chunk: int | None = None,
    dither: float = 0.0,
    max_seconds: float = 20.0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Quantize one part at a time.

    Args:
        experiment: the checkpoint.
        plan: what every layer would become.
        utterances: a handful; every part is measured on all of them.
        chunk: encoder frames per chunk; -1 for full context; None: 16 where the model streams.
        dither: as in the bundle's manifest.
        max_seconds: longer recordings are cut.
        progress: called after each part.

    Raises:
        AudioError: no recording long enough for one encoder frame, or one that cannot be read.
    """
    encoder = experiment.config.encoder
    if chunk is None:
        chunk = -1 if encoder.why_not_streaming() else 16
    if not encoder.use_dynamic_chunk and encoder.static_chunk_size > 0:
        chunk = encoder.static_chunk_size  # it has never seen another
    model = experiment.build()
    options = dataclasses.replace(experiment.config.features, dither=dither)
    probes, seconds = [], 0.0
    with torch.inference_mode():
        for utterance in utterances:
            features, duration = recording_features(utterance.clip, options)
            features = features[: int(max_seconds * 1000 / options.frame_shift_ms)]
            if len(features) > encoder.right_context:
                probes.append(_Probe(model, features, chunk))
                seconds += min(duration, max_seconds)
        if not probes:
            raise AudioError(
                f"expected recordings of at least {encoder.right_context + 1} feature frames, found none among "
                f"{len(utterances)}; choose longer ones"
            )
        parts, experts = divide(plan)
        found_parts: list[PartError] = []
        found_experts: list[ExpertError] = []
        total = len(parts) + len(experts)
        for path in parts:
            found_parts.append(_measure(model, plan, path, parts[path], probes))
            if progress:
                progress(len(found_parts), total)
        for path, layers in experts.items():
            layer, _, expert = path.rpartition(".experts.")
            rows = sum(probe.rows(layer, int(expert)) for probe in probes)
            error = _measure(model, plan, path, layers, probes if rows else [])
            borrowed = any(plan.layers[name].borrowed for name in layers)
            found_experts.append(
                ExpertError(layer, int(expert), error.precision, borrowed, rows, error.kl, error.routing)
            )
            if progress:
                progress(len(found_parts) + len(found_experts), total)
        both = [_measure(model, plan, kind, set(plan.layers), probes) for kind in ("encoder", "decoder")]
    return Sensitivity(
        checkpoint_sha256=experiment.sha256,
        scheme=plan.scheme,
        utterances=len(probes),
        seconds=seconds,
        frames=sum(probe.frames for probe in probes),
        tokens=sum(probe.tokens for probe in probes),
        chunk=chunk,
        encoder=both[0],
        decoder=both[1],
        parts=tuple(found_parts),
        experts=tuple(found_experts),
    )


def divide(plan: QuantizationPlan) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Module path of every part, and of every expert -> its layers in the plan.

    A part is an attention, a convolution module, a feed-forward layer with all its experts, the subsampling, CTC, or a
    decoder's output layer.
    """
    parts: dict[str, set[str]] = {}
    experts: dict[str, set[str]] = {}
    for name in plan.layers:
        steps = name.split(".")
        number = next((i for i, step in enumerate(steps) if step.isdigit() and steps[i - 1] != "conv"), None)
        if name.startswith("encoder.embed."):
            part = "encoder.embed"
        elif number is not None and steps[number - 1] in ("encoders", "decoders"):
            part = ".".join(steps[: number + 2])
        else:
            part = name
        parts.setdefault(part, set()).add(name)
        layer, separator, rest = name.partition(".experts.")
        if separator:
            experts.setdefault(f"{layer}.experts.{rest.partition('.')[0]}", set()).add(name)
    return parts, experts


class _Probe:
    """One utterance: what the fp32 model makes of it, and the inputs of every encoder block, so that a part in block n
    is measured from block n on."""

    def __init__(self, model: U2pp, features: NDArray[np.float32], chunk: int) -> None:
        self._model = model
        self._blocks: list[tuple[Any, ...]] = []
        self.order: dict[str, int] = {}
        feats = torch.from_numpy(features)[None]

        def keep(module: nn.Module, args: Any) -> None:
            self._blocks.append(args)

        def watch(name: str) -> Any:
            def note(module: nn.Module, args: Any) -> None:
                self.order.setdefault(name, len(self.order))

            return note

        hooks = [block.register_forward_pre_hook(keep) for block in model.encoder.encoders]
        hooks += [module.register_forward_pre_hook(watch(name)) for name, module in model.named_modules()]
        try:
            with _routing(model) as routes:
                self._feats, self._chunk = feats, chunk
                memory, _ = model.encoder(feats, torch.tensor([feats.size(1)]), chunk)
                log_probs = model.ctc(memory)[0]
                self.frames = len(log_probs)
                self._hyps, self._lens = _hypotheses(model, log_probs)
                self.tokens = int(self._lens.sum())
                self._memory = memory
                scores = self._score(memory)
        finally:
            for hook in hooks:
                hook.remove()
        self._routes = self._valid(routes)
        self._outputs = {"ctc": log_probs, **scores}

    def rows(self, layer: str, expert: int) -> int:
        """Frames or tokens that passed through an expert."""
        return int((self._routes[layer] == expert).sum())

    def compare(self, path: str) -> tuple[Tensor, list[Tensor]]:
        """With the model as it is now (``path`` quantized): KL divergence per frame or token, and for every MoE layer
        after ``path`` whether the set of experts is unchanged, per frame or token."""
        model = self._model
        with _routing(model) as routes:
            if path == "decoder":  # encoder included
                memory, _ = model.encoder(self._feats, torch.tensor([self._feats.size(1)]), self._chunk)
                scores = self._score(memory)
                want = torch.cat([self._outputs["left"], self._outputs["right"]])
                have = torch.cat([scores["left"], scores["right"]])
            elif path.startswith("decoder."):
                side = "right" if path.startswith("decoder.right_decoder.") else "left"
                want, have = self._outputs[side], self._score(self._memory)[side]
            else:
                want, have = self._outputs["ctc"], model.ctc(self._encode(path))[0]
        p, q = want.double(), have.double()
        kl = (p.exp() * (p - q)).sum(-1).clamp(min=0.0)
        same = []
        for name, chosen in self._valid(routes).items():
            if self._after(name, path):
                same.append((chosen.sort(-1).values == self._routes[name].sort(-1).values).all(-1))
        return kl, same

    def _encode(self, path: str) -> Tensor:
        """Encoder output, from the first block that ``path`` can change."""
        model, steps = self._model, path.split(".")
        if path.startswith(("ctc", "decoder")):
            return self._memory
        if steps[:2] != ["encoder", "encoders"]:
            return model.encoder(self._feats, torch.tensor([self._feats.size(1)]), self._chunk)[0]
        first = int(steps[2])
        x, *rest = self._blocks[first]
        for block in list(model.encoder.encoders)[first:]:
            x, _, _ = block(x, *rest)
        return model.encoder._finish(x)

    def _score(self, memory: Tensor) -> dict[str, Tensor]:
        """Decoder log-probabilities (tokens, vocabulary) of the hypotheses; nothing on the right without a reverse
        decoder."""
        decoder = self._model.config.decoder
        if decoder is None:
            nothing = torch.zeros(0, self._model.config.vocab_size)
            return {"left": nothing, "right": nothing}
        left, right = self._model.forward_attention_decoder(self._hyps, self._lens, memory)
        valid = torch.arange(left.size(1)) < self._lens[:, None]
        return {"left": left[valid], "right": right[valid] if decoder.bidirectional else left[:0, 0]}

    def _valid(self, routes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the padding of the hypotheses."""
        valid = (torch.arange(self._hyps.size(1)) < self._lens[:, None]).reshape(-1)
        return {k: v[valid] if k.startswith("decoder.") else v for k, v in routes.items()}

    def _after(self, layer: str, path: str) -> bool:
        """Whether what ``path`` computes can reach the router of ``layer``."""
        if path in ("encoder", "decoder"):
            return layer.startswith(path + ".")
        if path.startswith("decoder.") != layer.startswith("decoder."):
            return False
        own = path.partition(".experts.")[0]
        return layer != own and self.order[f"{layer}.gate"] > self.order.get(own, -1)


def _measure(model: U2pp, plan: QuantizationPlan, path: str, layers: set[str], probes: Sequence[_Probe]) -> PartError:
    """The error with ``layers`` quantized, which are those of ``path``; all of them for encoder and decoder."""
    kinds = sorted({plan.layers[name].precision for name in layers})
    errors, same = [], []
    with simulated(model, plan, layers):
        for probe in probes:
            kl, sets = probe.compare(path)
            errors.append(kl)
            same.append(sets)
    kl = torch.cat(errors) if errors else torch.zeros(0)
    routing = None
    if same and same[0]:  # the same layers for every utterance
        routing = float(np.mean([torch.cat(column).double().mean().item() for column in zip(*same)]))
    mean, largest = (float(kl.mean()), float(kl.max())) if len(kl) else (0.0, 0.0)
    return PartError(path, "+".join(kinds), mean, largest, routing)


@contextmanager
def _routing(model: U2pp) -> Iterator[dict[str, Tensor]]:
    """Collects the experts (rows, k) that every MoE layer chooses inside the block."""
    routes: dict[str, Tensor] = {}

    def watch(name: str, k: int) -> Any:
        def note(gate: nn.Module, args: Any, logits: Tensor) -> None:
            routes[name] = logits.topk(k, dim=-1).indices

        return note

    hooks = [
        module.gate.register_forward_hook(watch(name, module.active))
        for name, module in model.named_modules()
        if isinstance(module, MoeFeedForward)
    ]
    try:
        yield routes
    finally:
        for hook in hooks:
            hook.remove()


def _hypotheses(model: U2pp, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """(n, u) int64 with sos first, padded with eos; and lengths (n,) with sos."""
    config = model.config
    search = CtcPrefixBeamSearch(min(HYPOTHESES, config.vocab_size), config.blank)
    search.advance(log_probs.numpy())
    rows = [(config.sos, *hypothesis.tokens) for hypothesis in search.nbest()]
    lens = torch.tensor([len(row) for row in rows])
    hyps = torch.full((len(rows), int(lens.max())), config.eos)
    for i, row in enumerate(rows):
        hyps[i, : len(row)] = torch.tensor(row)
    return hyps, lens
