"""The torch model against itself and against definitions: streaming, padding, experts, losses; random tiny models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from model_helpers import features, random_model, train_yaml
from torch import Tensor

from edge.model.feedforward import FeedForward, MoeFeedForward
from edge.model.masks import random_chunk
from edge.model.u2pp import PADDING, U2pp

DENSE = {"mlp_type": "position_wise_feed_forward"}
NO_BIAS = {"query_bias": False, "key_bias": False, "value_bias": False, "mlp_bias": False}
STREAMING: dict[str, dict[str, Any]] = {
    "moe": {},
    "dense_batch_norm": {"encoder_conf": {**DENSE, "cnn_module_norm": "batch_norm", "cnn_module_kernel": 8}},
    "conv2d6": {"encoder_conf": {"input_layer": "conv2d6"}},
    "conv2d8": {"encoder_conf": {"input_layer": "conv2d8"}},
    "absolute": {"encoder_conf": {"pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn"}},
    "absolute_and_relative": {"encoder_conf": {"pos_enc_layer_type": "abs_pos"}},
    "no_positions": {"encoder_conf": {"selfattention_layer_type": "selfattn"}},
    "post_norm": {"encoder_conf": {"normalize_before": False}},
    "no_final_norm": {"encoder_conf": {"final_norm": False}},
    "no_macaron_relu": {"encoder_conf": {"macaron_style": False, "activation_type": "relu"}},
    "no_convolution": {"encoder_conf": {"use_cnn_module": False, "causal": False}},
    "no_biases_one_expert": {"encoder_conf": {**NO_BIAS, "conv_bias": False, "n_expert": 3, "n_expert_activated": 1}},
    "all_experts_gelu": {"encoder_conf": {"n_expert": 3, "n_expert_activated": 3, "activation_type": "gelu"}},
    "wide_kernel": {"encoder_conf": {"cnn_module_kernel": 15, "attention_heads": 4}},
    "transformer": {"encoder": "transformer"},
    "transformer_dense_relative_positions": {
        "encoder_conf": {**DENSE, "pos_enc_layer_type": "rel_pos"},
        "encoder": "transformer",
    },
}


def model_of(case: dict[str, Any], seed: int = 0) -> U2pp:
    return random_model(train_yaml(**case), seed)


def full(model: U2pp, feats: Tensor, *mode: int) -> Tensor:
    out, valid = model.encoder(feats, torch.tensor([feats.size(1)]), *mode)
    assert valid.all()
    return out


@pytest.mark.parametrize("case", STREAMING.values(), ids=STREAMING)
@torch.inference_mode()
def test_chunks_give_what_the_mask_gives(case: dict[str, Any]) -> None:
    """Caches and windows against one masked pass, at lengths where the last chunk is whole, short, or the only one."""
    model = model_of(case)
    rate, least = model.config.encoder.subsampling, model.config.encoder.right_context + 1
    for chunk, left in ((4, -1), (4, 0), (4, 1), (3, 4), (1, 2), (30, 1)):
        for frames in (1, 2, chunk, chunk + 1, 3 * chunk - 1, 23):
            feats = features((frames - 1) * rate + least + (rate - 1 if frames == 2 else 0), seed=frames)
            expected = full(model, feats, chunk, left)
            assert expected.size(1) == frames
            streamed = model.encoder.forward_chunk_by_chunk(feats, chunk, left)
            torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0, msg=lambda m: f"{chunk} {left} {m}")  # noqa: B023


@torch.inference_mode()
def test_left_context_and_chunk_change_the_output() -> None:
    """Otherwise the test above could not fail."""
    model, feats = model_of({}), features(200)
    outputs = [full(model, feats, *mode) for mode in ((-1, -1), (4, -1), (4, 1), (4, 0), (8, 1))]
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-2
    torch.testing.assert_close(full(model, feats, 1000, -1), outputs[0])


@torch.inference_mode()
def test_a_static_chunk_is_always_used() -> None:
    """Such a model has seen one chunk size; WeNet ignores any other request."""
    static = {"encoder_conf": {"static_chunk_size": 5, "use_dynamic_chunk": False}}
    feats, dynamic = features(150), model_of({})
    expected = full(dynamic, feats, 5, -1)
    for mode in ((-1, -1), (3, -1), (5, -1)):
        torch.testing.assert_close(full(model_of(static), feats, *mode), expected)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"causal": False}, "not causal"), ({"use_dynamic_chunk": False}, "without chunk masks")],
)
@torch.inference_mode()
def test_a_model_that_cannot_stream_says_why(settings: dict[str, Any], reason: str) -> None:
    model, feats = model_of({"encoder_conf": settings}), features(60)
    full(model, feats)
    for call in (lambda: full(model, feats, 4, -1), lambda: model.encoder.forward_chunk(feats, 0)):
        with pytest.raises(ValueError, match=f"cannot stream: .*{reason}"):
            call()


@torch.inference_mode()
def test_hidden_cache_entries_do_not_matter() -> None:
    """A cache of fixed size whose unused part holds garbage gives what a growing cache gives."""
    model, keep, chunk = model_of({}), 12, 4
    e = model.config.encoder
    feats = features(chunk * 5 * e.subsampling + e.right_context)
    expected = full(model, feats, chunk, keep // chunk)
    att_cache = 1e3 * torch.randn(e.num_blocks, e.attention_heads, keep, 2 * e.head_dim)
    cnn_cache, outputs = None, []
    for i in range(5):
        window = feats[:, i * chunk * e.subsampling :][:, : (chunk - 1) * e.subsampling + e.right_context + 1]
        mask = torch.arange(keep + chunk)[None, None] >= keep - i * chunk
        y, att_cache, cnn_cache = model.encoder.forward_chunk(window, i * chunk, att_cache, cnn_cache, keep, mask)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), expected[:, : 5 * chunk], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_positions_end_with_the_table() -> None:
    encoder = model_of({}).encoder
    chunk = features(4 * 4 + 3)  # four encoder frames
    encoder.forward_chunk(chunk, 4996)
    with pytest.raises(ValueError, match="expected positions below 5000, found 5001"):
        encoder.forward_chunk(chunk, 4997)


PADDING_CASES = {
    **{name: STREAMING[name] for name in ("moe", "dense_batch_norm", "conv2d6", "conv2d8", "post_norm", "transformer")},
    # With a bias, WeNet's own non-causal convolution sees the bias in padded frames; without, nothing leaks.
    "not_causal": {"encoder_conf": {"causal": False, "conv_bias": False}},
}


@pytest.mark.parametrize("case", PADDING_CASES.values(), ids=PADDING_CASES)
@torch.inference_mode()
def test_padding_does_not_leak(case: dict[str, Any]) -> None:
    """Each row of a batch is what it is alone: encoder (full context and chunks), and both decoders."""
    model = model_of(case)
    lengths = torch.tensor([150, 97, 61, 29])
    feats = torch.stack([torch.cat([features(n, seed=n)[0], 50 * torch.randn(150 - n, 20)]) for n in lengths.tolist()])
    for mode in ((-1, -1), (4, 2)) if not model.config.encoder.why_not_streaming() else ((-1, -1),):
        out, valid = model.encoder(feats, lengths, *mode)
        for row, length in enumerate(lengths.tolist()):
            alone, _ = model.encoder(feats[row : row + 1, :length], lengths[row : row + 1], *mode)
            assert valid[row].sum() == alone.size(1)
            torch.testing.assert_close(out[row, : alone.size(1)], alone[0], atol=1e-5, rtol=0)
    hyps = torch.tensor([[2, 5, 6, 7, 8], [2, 9, 2, 2, 2], [2, 2, 2, 2, 2]])
    lens = torch.tensor([5, 2, 1])
    batch = model.forward_attention_decoder(hyps, lens, alone)
    for row, length in enumerate(lens.tolist()):
        single = model.forward_attention_decoder(hyps[row : row + 1, :length], lens[row : row + 1], alone)
        for have, want in zip(batch, single, strict=True):
            torch.testing.assert_close(have[row, :length], want[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_decoders_read_one_way() -> None:
    """The left decoder does not see the tokens after a position, the right decoder not those before it."""
    model, memory = model_of({}), torch.randn(1, 9, 16)
    hyps = torch.tensor([[2, 5, 6, 7, 8], [2, 5, 6, 7, 9], [2, 4, 6, 7, 8]])  # the last differs, the first differs
    score, r_score = model.forward_attention_decoder(hyps, torch.tensor([5, 5, 5]), memory)
    for scores, other, same in ((score, 1, 4), (r_score, 2, 4), (score, 2, 1), (r_score, 1, 1)):
        # Position 0 is sos in both directions; the first difference is read at position ``same``.
        torch.testing.assert_close(scores[other, :same], scores[0, :same])
        assert (scores[other, same:] - scores[0, same:]).abs().amax(-1).min() > 1e-3


def one_by_one(layer: MoeFeedForward, frames: Tensor) -> Tensor:
    """The definition: for each frame, softmax over its best logits weighs those experts (arXiv 2404.16407)."""
    results = []
    for frame in frames:
        logits = [float(row @ frame) for row in layer.gate.weight.detach()]
        best = sorted(range(len(logits)), key=lambda i: logits[i], reverse=True)[: layer.active]
        total = sum(math.exp(logits[i]) for i in best)
        results.append(sum(math.exp(logits[i]) / total * layer.experts[i](frame) for i in best))
    return torch.stack(results)


@pytest.mark.parametrize(("experts", "active"), [(8, 2), (5, 1), (3, 3), (1, 1)])
@torch.inference_mode()
def test_experts_are_the_definition(experts: int, active: int) -> None:
    torch.manual_seed(0)
    layer = MoeFeedForward(6, 10, 0.0, "swish", True, experts, active).double()
    frames = torch.randn(2, 17, 6, dtype=torch.float64)
    expected = one_by_one(layer, frames.reshape(-1, 6)).view_as(frames)
    torch.testing.assert_close(layer(frames), expected, atol=1e-6, rtol=0)  # router weights are float32


@pytest.mark.parametrize("frames", [1, 9])
def test_an_expert_with_all_frames_and_one_with_none(frames: int) -> None:
    torch.manual_seed(0)
    layer = MoeFeedForward(6, 10, 0.0, "relu", True, 4, 2).double()
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[:, 0] = torch.tensor([3.0, -5.0, 2.5, -4.0], dtype=torch.float64)
    x = torch.cat([torch.ones(frames, 1), torch.randn(frames, 5)], 1).double()
    chosen, weights = layer.route(x)
    assert chosen.tolist() == [[0, 2]] * frames
    assert weights[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(-0.5))] * frames, rel=1e-6)
    out = layer(x)
    torch.testing.assert_close(out, one_by_one(layer, x), atol=1e-6, rtol=0)
    out.sum().backward()
    assert [expert.w_1.weight.grad is not None for expert in layer.experts] == [True, False, True, False]


def ctc_by_counting(log_probs: Tensor, tokens: list[int], blank: int) -> float:
    """-log of the sum over all alignments: every path of labels that collapses to ``tokens``."""
    total = 0.0
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        if [label for label, _ in itertools.groupby(path) if label != blank] == tokens:
            total += math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
    return -math.log(total)


def smoothed(log_probs: Tensor, target: list[int], smoothing: float) -> float:
    """Kullback-Leibler divergence from the smoothed target, summed over positions."""
    vocab, total = log_probs.size(1), 0.0
    for row, token in zip(log_probs.tolist(), target, strict=True):
        for index, value in enumerate(row):
            want = 1.0 - smoothing if index == token else smoothing / (vocab - 1)
            total += want * (math.log(want) - value)
    return total


LOSS_DATA = train_yaml(
    encoder_conf={"use_dynamic_chunk": False}, output_dim=5, tokenizer_conf={"special_tokens": {"<sos>": 2, "<eos>": 4}}
)


def test_losses_are_their_definitions() -> None:
    model = random_model(LOSS_DATA)
    feats, feat_lengths = torch.cat([features(19, 1), features(19, 2)]), torch.tensor([19, 15])  # 4 and 3 frames
    rows = [[1, 3, 3], [2]]  # a repeat needs a blank between: one alignment in four frames
    tokens = torch.tensor([rows[0], rows[1] + [PADDING] * 2])
    with torch.inference_mode():
        losses = model.losses(feats, feat_lengths, tokens, torch.tensor([3, 1]))
        memory, valid = model.encoder(feats, feat_lengths)
        sizes = valid.sum(-1).flatten().tolist()
        assert sizes == [4, 3]
        log_probs = model.ctc(memory).double()
        ctc = [ctc_by_counting(log_probs[i, :n], rows[i], blank=0) for i, n in enumerate(sizes)]
        assert float(losses.ctc) == pytest.approx(sum(ctc) / 2, rel=1e-5)

        attention = [0.0, 0.0]
        for i, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            decoders = (model.decoder.left_decoder, row), (model.decoder.right_decoder, row[::-1])
            for side, (decoder, text) in enumerate(decoders):
                inputs = torch.tensor([[2, *text]])
                logits = decoder(memory[i : i + 1, :size], None, inputs, torch.tensor([len(text) + 1]))[0]
                attention[side] += smoothed(logits.double().log_softmax(-1), [*text, 4], smoothing=0.1) / 2
    left, right = attention
    assert losses.attention is not None
    assert left != pytest.approx(right, rel=0.01)
    assert float(losses.attention) == pytest.approx(0.7 * left + 0.3 * right, rel=1e-5)
    assert float(losses.total) == pytest.approx(0.3 * sum(ctc) / 2 + 0.7 * (0.7 * left + 0.3 * right), rel=1e-5)


def test_loss_weights() -> None:
    """Only CTC, only the left decoder, and averages over tokens instead of sentences."""
    feats, lengths = features(60), torch.tensor([60])
    tokens, token_lengths = torch.tensor([[3, 1, 3]]), torch.tensor([3])

    def losses(**model_conf: Any) -> Any:
        model = random_model({**LOSS_DATA, "model_conf": {"ctc_weight": 0.5, **model_conf}})
        with torch.inference_mode():
            return model.losses(feats, lengths, tokens, token_lengths)

    only_ctc = losses(ctc_weight=1.0)
    assert only_ctc.attention is None
    assert float(only_ctc.total) == float(only_ctc.ctc)
    left, right, half = (float(losses(reverse_weight=w).attention) for w in (0.0, 1.0, 0.5))
    assert half == pytest.approx((left + right) / 2, rel=1e-6)
    per_token = float(losses(reverse_weight=0.0, length_normalized_loss=True).attention)
    assert per_token == pytest.approx(left / 4, rel=1e-6)  # three tokens and eos


@torch.inference_mode()
def test_an_impossible_alignment_costs_nothing() -> None:
    """More tokens than frames: CTC is infinite there, and must not spoil the batch."""
    model = random_model(LOSS_DATA)
    feats, lengths = torch.cat([features(60), features(60, 1)]), torch.tensor([60, 11])
    tokens = torch.tensor([[3, 1, 3, 1, 3], [1, 3, 1, 3, 1]])
    losses = model.losses(feats, lengths, tokens, torch.tensor([5, 5]))
    alone = model.losses(feats[:1], lengths[:1], tokens[:1], torch.tensor([5]))
    assert float(losses.ctc) == pytest.approx(float(alone.ctc) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["moe", "dense_batch_norm", "transformer", "conv2d6"])
def test_gradients_reach_every_weight(name: str) -> None:
    model = model_of({**STREAMING[name], "decoder_conf": {"mlp_type": "moe", "n_expert": 3, "n_expert_activated": 2}})
    model.train()
    torch.manual_seed(0)  # dropout, and the chunk
    used: set[str] = set()
    for path, layer in model.named_modules():
        if isinstance(layer, FeedForward):
            layer.register_forward_pre_hook(lambda module, args, path=path: used.add(path))
    feats = torch.cat([features(160, 1), features(160, 2)])
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, PADDING, PADDING]])
    # Both rows are full: an expert with frames of padding only has a gradient of zero.
    losses = model.losses(feats, torch.tensor([160, 160]), tokens, torch.tensor([4, 2]))
    losses.total.backward()
    assert math.isfinite(losses.total.item())
    for key, parameter in model.named_parameters():
        if ".experts." in key and key.rsplit(".", 2)[0] not in used:
            assert parameter.grad is None, key
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # A key bias adds the same to every score of a query: softmax does not see it.
        if not key.endswith("linear_k.bias"):
            assert parameter.grad.abs().max() > 0, key


def test_training_draws_a_chunk_from_the_generator() -> None:
    model, feats = model_of({}), features(300)
    arguments = feats, torch.tensor([300]), torch.tensor([[3, 4]]), torch.tensor([2])

    def losses(seed: int) -> float:
        with torch.inference_mode():
            return float(model.losses(*arguments, generator=torch.Generator().manual_seed(seed)).total)

    values = [losses(seed) for seed in range(12)]
    assert values == [losses(seed) for seed in range(12)]
    assert 3 <= len(set(values)) <= 11  # full context repeats, chunks differ


def test_random_chunks_are_wenets() -> None:
    """``add_optional_chunk_mask``: full context half of the time, else 1 to max_chunk frames, all equally often."""
    generator, draws = torch.Generator().manual_seed(0), 4000
    seen = [random_chunk(201, 25, True, generator) for _ in range(draws)]
    chunks = [(chunk, left) for chunk, left in seen if chunk > 0]
    assert 0.47 < len(chunks) / draws < 0.53
    assert all(left == -1 for chunk, left in seen if chunk == -1)
    assert all(0 <= left < 200 // chunk for chunk, left in chunks)
    counts = torch.bincount(torch.tensor([chunk for chunk, _ in chunks]), minlength=26)
    assert len(counts) == 26 and counts[0] == 0
    assert counts[1:].min() > 50 and counts[1:].max() < 110  # 80 expected
    assert {left for chunk, left in chunks if chunk == 25} == set(range(8))
    assert {random_chunk(201, 25, False, generator)[1] for _ in range(200)} == {-1}
    assert {random_chunk(3, 25, True, generator) for _ in range(200)} == {(-1, -1), (2, 0)}
    assert random_chunk(1, 25, True) == random_chunk(0, 25, True) == (-1, -1)
