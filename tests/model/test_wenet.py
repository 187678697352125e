"""The torch reference against what WeNet's own code computed from the same checkpoints (../shared/wenet/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from edge.model.checkpoint import Experiment, load_experiment
from edge.model.feedforward import MoeFeedForward

TOLERANCE = 1e-4  # typical: 0, the same torch operations in the same order
MODES = [(16, -1), (16, 4), (8, 2)]


class Reference:
    """One experiment, its model, and WeNet's outputs."""

    def __init__(self, folder: Path) -> None:
        self.experiment: Experiment = load_experiment(folder)
        self.model = self.experiment.build()
        with np.load(folder / "reference.npz") as arrays:
            self.arrays: dict[str, npt.NDArray[Any]] = dict(arrays)
        self.results: dict[str, Any] = json.loads((folder / "reference.json").read_text())
        self.feats = torch.from_numpy(self.arrays["feats"])[None]
        self.lengths = torch.tensor([self.feats.size(1)])

    def check(self, have: Tensor, name: str) -> None:
        want = self.arrays[name]
        assert tuple(have.shape) == want.shape, name
        worst = float(np.abs(have.numpy() - want).max())
        assert worst <= TOLERANCE, f"{name}: {worst:.1e}"


@pytest.fixture(scope="module", params=["moe_u2pp", "dense_u2pp", "moe_encoder_only_bn"])
def reference(request: pytest.FixtureRequest, shared: Path) -> Reference:
    return Reference(shared / "wenet" / request.param)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


def test_configuration_is_wenets(reference: Reference) -> None:
    meta, config = reference.results["meta"], reference.experiment.config
    assert (config.sos, config.eos) == (meta["sos"], meta["eos"])
    assert config.encoder.right_context == meta["right_context"]
    assert config.encoder.subsampling == meta["subsampling_rate"]
    assert config.encoder.why_not_streaming() == ""
    assert config.vocab_size == len(reference.experiment.tokens) == reference.arrays["full_ctc_logp"].shape[1]


def test_full_context(reference: Reference) -> None:
    out, valid = reference.model.encoder(reference.feats, reference.lengths)
    assert valid.all()
    reference.check(out[0], "full_encoder_out")
    reference.check(reference.model.ctc(out)[0], "full_ctc_logp")


@pytest.mark.parametrize(("chunk", "left"), MODES)
def test_chunk_mask(reference: Reference, chunk: int, left: int) -> None:
    out, _ = reference.model.encoder(reference.feats, reference.lengths, chunk, left)
    reference.check(out[0], f"mask_{chunk}_{left}_encoder_out")


@pytest.mark.parametrize(("chunk", "left"), MODES)
def test_chunk_by_chunk(reference: Reference, chunk: int, left: int) -> None:
    out = reference.model.encoder.forward_chunk_by_chunk(reference.feats, chunk, left)
    reference.check(out[0], f"stream_{chunk}_{left}_encoder_out")
    reference.check(reference.model.ctc(out)[0], f"stream_{chunk}_{left}_ctc_logp")


def test_fixed_caches(reference: Reference) -> None:
    """Zero-filled caches of 64 frames from the start, hidden by the mask; the first position is 64, not 0."""
    e = reference.experiment.config.encoder
    chunk, keep = 16, 64
    window, stride = (chunk - 1) * e.subsampling + e.right_context + 1, chunk * e.subsampling
    att_cache = torch.zeros(e.num_blocks, e.attention_heads, keep, 2 * e.head_dim)
    cnn_cache = torch.zeros(e.num_blocks, 1, e.output_size, e.conv_context)
    outputs, offset = [], keep
    for start in range(0, reference.feats.size(1) - window + 1, stride):
        mask = torch.arange(keep + chunk)[None, None] >= 2 * keep - offset
        y, att_cache, cnn_cache = reference.model.encoder.forward_chunk(
            reference.feats[:, start : start + window], offset, att_cache, cnn_cache, keep, mask
        )
        outputs.append(y[0])
        offset += chunk
    assert len(outputs) > 2, "the reference has too few frames to fill a part of the cache"
    reference.check(torch.cat(outputs), "fixed_16_4_encoder_out")
    reference.check(att_cache, "fixed_16_4_att_cache")
    reference.check(cnn_cache, "fixed_16_4_cnn_cache")


def test_decoder_scores(reference: Reference) -> None:
    score, r_score = reference.model.forward_attention_decoder(
        torch.from_numpy(reference.arrays["dec_hyps"]),
        torch.from_numpy(reference.arrays["dec_hyps_lens"]),
        torch.from_numpy(reference.arrays["full_encoder_out"])[None],
    )
    reference.check(score, "dec_score")
    reference.check(r_score, "dec_r_score")


def test_routers_choose_wenets_experts(reference: Reference) -> None:
    counts: dict[str, list[int]] = {}

    def count(name: str, layer: MoeFeedForward, frames: Tensor) -> None:
        chosen, weights = layer.route(frames.reshape(-1, frames.size(-1)))
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
        counts[name] = torch.bincount(chosen.reshape(-1), minlength=len(layer.experts)).tolist()

    layers = {n: m for n, m in reference.model.encoder.named_modules(prefix="encoder") if isinstance(m, MoeFeedForward)}
    hooks = [
        layer.register_forward_pre_hook(lambda module, args, name=name: count(name, module, args[0]))
        for name, layer in layers.items()
    ]
    reference.model.encoder(reference.feats, reference.lengths)
    for hook in hooks:
        hook.remove()
    assert counts == reference.results["expert_counts_full"]
