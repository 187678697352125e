from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_helpers import MODELS, audio, feed, recognizer, reference, speech

from edge.runtime import (
    AudioError,
    Bundle,
    DecodeOptions,
    EndpointOptions,
    EndpointRule,
    Recognizer,
    Result,
    StreamError,
    load_audio,
)
from edge.runtime.audio import to_mono_float
from edge.runtime.chunker import FrameChunker
from edge.runtime.engines.base import initial_state
from edge.runtime.features import StreamingFbank
from edge.runtime.rescoring import attention_rescoring
from edge.runtime.search import CtcPrefixBeamSearch

MODEL = "moe_u2pp"
OFF = EndpointRule(True, math.inf, 0.0)
AFTER_1280_MS = EndpointOptions(rule1=OFF, rule2=OFF, rule3=EndpointRule(False, 0.0, 1280.0))
ONE_UTTERANCE = DecodeOptions(endpoint=None)


def plain(features: NDArray[np.float32], chunk: int | None, left: int) -> tuple[tuple[int, ...], float]:
    """Tokens and score of one utterance, put together from the backend, search and rescoring by hand."""
    engine, manifest = recognizer(MODEL).backend, recognizer(MODEL).manifest
    stream = manifest.stream
    state = initial_state(manifest.caches, -1 if chunk is None or left < 0 else left * chunk)
    size = len(features) if chunk is None else (chunk - 1) * 4 + 7
    steps = []
    for start in range(0, len(features) - stream.right_context, len(features) if chunk is None else chunk * 4):
        steps.append(engine.step(features[start : start + size], state))
        state = steps[-1].state
    search = CtcPrefixBeamSearch(10, 0)
    search.advance(np.concatenate([s.log_probs for s in steps]))
    best = attention_rescoring(
        search.nbest(),
        engine.rescore,
        np.concatenate([s.encoder_out for s in steps]),
        sos=2,
        eos=2,
        vocabulary=31,
        ctc_weight=0.5,
        reverse_weight=0.3,
    )[0]
    return best.hypothesis.tokens, best.score


def ids(result: Result) -> tuple[int, ...]:
    return tuple(token.id for token in result.tokens)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("chunk", "left"), [(None, -1), (16, 4), (16, -1), (8, 2)])
def test_chunks_through_the_backend_are_wenets(name: str, chunk: int | None, left: int) -> None:
    arrays, _ = reference(name)
    loaded = recognizer(name)
    mode = "full" if chunk is None else f"stream_{chunk}_{left}"
    state = initial_state(loaded.manifest.caches, -1 if chunk is None or left < 0 else left * chunk)
    chunker = FrameChunker(loaded.manifest.stream, chunk or 5000, 80)
    chunker.push(arrays["feats"])
    log_probs, encoder_out = [], []
    while (window := chunker.next()) is not None or (window := chunker.final()) is not None:
        step = loaded.backend.step(window, state)
        state = step.state
        log_probs.append(step.log_probs)
        encoder_out.append(step.encoder_out)
        if chunk and left >= 0:
            assert state.cached == min(state.offset, chunk * left)
    assert np.abs(np.concatenate(log_probs) - arrays[f"{mode}_ctc_logp"]).max() < 1e-4
    assert np.abs(np.concatenate(encoder_out) - arrays[f"{mode}_encoder_out"]).max() < 1e-4


@pytest.mark.parametrize(("chunk", "left"), [(16, -1), (16, 4), (4, 2), (1, 0), (None, -1)])
def test_stream_of_a_recording_is_its_parts_put_together(chunk: int | None, left: int) -> None:
    samples, rate = load_audio(speech())
    features = StreamingFbank(recognizer(MODEL).manifest.features).accept(samples)
    options = DecodeOptions(chunk=chunk, left_chunks=left, full_context=chunk is None, endpoint=None, nbest=3)
    (result,) = feed(recognizer(MODEL).stream(options), samples, rate)
    tokens, score = plain(features, chunk, left)
    assert ids(result) == tokens and result.nbest[0].score == pytest.approx(score, abs=1e-3)
    assert result.nbest[0].token_ids == tokens and len(result.nbest) == 3
    assert result.nbest[0].score >= result.nbest[1].score >= result.nbest[2].score
    # Every encoder frame was decoded: (frames - 7) // 4 + 1.
    assert result.start_ms == 0.0 and result.end_ms == ((len(features) - 7) // 4 + 1) * 40.0
    assert result.is_final and result.text == recognizer(MODEL).bundle.tokens.text(tokens)


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(endpoint=AFTER_1280_MS),
        DecodeOptions(full_context=True),
        DecodeOptions(chunk=4, left_chunks=3, endpoint=None, rescoring=False),
    ],
)
def test_blocks_and_dtypes_do_not_matter(options: DecodeOptions) -> None:
    samples = audio(6.0)
    whole = feed(recognizer(MODEL).stream(options), samples, sizes=(len(samples),))
    assert whole and any(r.text for r in whole)
    for sizes in [(1600,), (1, 7, 4001, 0, 159), (160,), (30000,)]:
        assert feed(recognizer(MODEL).stream(options), samples, sizes=sizes) == whole
    for same in (samples / np.float32(32768), samples.astype(np.int32) << 16, np.stack([samples, samples], axis=1)):
        assert feed(recognizer(MODEL).stream(options), same) == whole


def test_endpoints_lose_no_audio_and_times_go_on() -> None:
    samples = audio(6.0)
    features = StreamingFbank(recognizer(MODEL).manifest.features).accept(to_mono_float(samples))
    results = feed(recognizer(MODEL).stream(DecodeOptions(endpoint=AFTER_1280_MS)), samples)
    starts = range(0, len(features) - 6, 128)  # 32 encoder frames of 4
    expected = [plain(features[start : start + 127 + 4], 16, -1) for start in starts]
    assert [ids(r) for r in results] == [tokens for tokens, _ in expected]
    assert [r.start_ms for r in results] == [start * 10.0 for start in starts]
    assert [r.end_ms for r in results[:-1]] == [r.start_ms for r in results[1:]]
    assert [r.segment for r in results] == list(range(len(results)))
    for result in results:
        times = [t for token in result.tokens for t in (token.start_ms, token.end_ms)]
        assert times == sorted(times) and result.start_ms <= times[0] and times[-1] <= result.end_ms
        assert all(0.0 <= token.confidence <= 1.0 for token in result.tokens)
        assert " ".join(word.text for word in result.words) == result.text


def test_partial_grows_to_the_final_result() -> None:
    stream = recognizer(MODEL).stream(dataclasses.replace(ONE_UTTERANCE, rescoring=False))
    assert stream.partial == Result("", 0.0, 0.0, False, 0)
    ends = []
    for block in np.split(audio(4.0), 40):
        assert stream.accept(block, 16000) == []
        assert not stream.partial.is_final
        ends.append(stream.partial.end_ms)
    assert sorted(set(ends)) == [640.0 * chunks for chunks in range(7)], "398 feature frames: 5 * 64 + 67 = 387"
    last = stream.partial
    (final,) = stream.finish()
    # Without rescoring, the last partial and the result differ by the last, short chunk only.
    assert len(ids(final)) >= len(ids(last)) > 10 and final.end_ms > last.end_ms
    assert stream.partial.text == "" and stream.finished


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_sample_rates_are_resampled(rate: int) -> None:
    stream = recognizer(MODEL).stream(ONE_UTTERANCE)
    samples = (0.1 * np.random.default_rng(0).normal(0, 1, 3 * rate)).clip(-1, 1)
    (result,) = feed(stream, samples, rate, sizes=(rate // 10,))
    assert 2900 <= result.end_ms <= 3000 and result.text
    assert stream.stats.audio_s == pytest.approx(3.0)


def test_nothing_and_too_little() -> None:
    stream = recognizer(MODEL).stream()
    assert stream.accept([], 16000) == [] and stream.accept(np.zeros((0, 2), np.int16), 16000) == []
    assert stream.finish() == [] and stream.finish() == []
    assert recognizer(MODEL).stream().finish() == []
    # 84 ms: 6 feature frames, one too few for an encoder frame; 85 ms: just enough.
    for samples, frames in ((1359, 0), (1360, 1)):
        stream = recognizer(MODEL).stream(ONE_UTTERANCE)
        feed(stream, audio(1.0)[:samples])
        assert stream.stats.chunks == frames


def test_ten_seconds_of_digital_silence_do_no_harm() -> None:
    for options in (DecodeOptions(), DecodeOptions(full_context=True), DecodeOptions(chunk=1, left_chunks=0)):
        stream = recognizer(MODEL).stream(options)
        results = feed(stream, np.zeros(160000, np.float32))
        assert stream.stats.chunks > 0 and all(np.isfinite(h.score) for r in results for h in r.nbest)


def test_silence_is_never_rescored() -> None:
    """A model that hears nothing gives no result, whatever the decoders would make of it."""

    class Deaf:
        name, device, threads = "deaf", "cpu", 1

        @classmethod
        def load(cls, bundle: Bundle, device: str, threads: int | None) -> Deaf:
            return cls()

        def step(self, features: NDArray[np.float32], state: Any) -> Any:
            step = recognizer(MODEL).backend.step(features, state)
            log_probs = np.full_like(step.log_probs, -10.0)
            log_probs[:, 0] = -1e-3
            return dataclasses.replace(step, log_probs=log_probs)

        def rescore(self, *_: Any) -> Any:
            raise AssertionError("rescored silence")

    stream = Recognizer(recognizer(MODEL).bundle, Deaf()).stream()
    assert stream.accept(audio(12.0), 16000) == []
    assert stream.partial.start_ms == 2 * 5120.0, "rule 1 ended two utterances after 5 s of blanks, 8 chunks each"
    assert stream.finish() == [] and stream.stats.utterances == 0


def test_bad_audio_leaves_the_stream_as_it_was() -> None:
    samples = audio(3.0)
    expected = feed(recognizer(MODEL).stream(ONE_UTTERANCE), samples)
    stream = recognizer(MODEL).stream(ONE_UTTERANCE)
    stream.accept(samples[:20000], 16000)
    with pytest.raises(AudioError, match=r"found 1 of 5 that are not \(first: nan at frame 2\)"):
        stream.accept(np.array([0, 0, np.nan, 0, 0]), 16000)
    with pytest.raises(AudioError, match="shape"):
        stream.accept(np.zeros((3, 5, 7), np.float32), 16000)
    with pytest.raises(StreamError, match="expected 16000 Hz as before in this stream, found 8000 Hz"):
        stream.accept(samples[:10], 8000)
    assert stream.accept(samples[20000:], 16000) + stream.finish() == expected
    with pytest.raises(StreamError, match=r"after finish\(\); start a new one"):
        stream.accept(samples[:10], 16000)


def test_rate_is_fixed_only_by_audio_that_was_taken() -> None:
    stream = recognizer(MODEL).stream()
    with pytest.raises(AudioError):
        stream.accept(np.array([np.nan]), 8000)
    stream.accept(audio(0.1), 16000)


def test_streams_do_not_disturb_each_other() -> None:
    inputs = [audio(3.0, seed) for seed in range(3)]
    options = [DecodeOptions(chunk=4, left_chunks=2), DecodeOptions(), DecodeOptions(full_context=True)]
    alone = [feed(recognizer(MODEL).stream(o), x) for o, x in zip(options, inputs)]
    streams = [recognizer(MODEL).stream(o) for o in options]
    mixed: list[list[Result]] = [[], [], []]
    for at in range(0, 48000, 1600):
        for index, stream in enumerate(streams):
            mixed[index] += stream.accept(inputs[index][at : at + 1600], 16000)
    for index, stream in enumerate(streams):
        mixed[index] += stream.finish()
    assert mixed == alone
    threaded: dict[int, list[Result]] = {}

    def work(index: int) -> None:
        threaded[index] = feed(recognizer(MODEL).stream(options[index]), inputs[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [threaded[index] for index in range(3)] == alone


def test_expert_counts_are_those_of_the_last_chunk() -> None:
    stream = recognizer(MODEL).stream(ONE_UTTERANCE)
    assert stream.expert_counts is None
    stream.accept(audio(0.8), 16000)
    counts = stream.expert_counts
    assert counts is not None and counts.shape == (6, 8)
    assert counts.sum(axis=1).tolist() == [32] * 6, "16 frames, 2 experts each"
    stream.accept(audio(0.5), 16000)
    stream.finish()
    last = stream.expert_counts
    assert last is not None and set(last.sum(axis=1)) == {2 * (((1300 - 25) // 10 + 1 - 7) // 4 + 1 - 16)}
    dense = recognizer("dense_u2pp").stream(ONE_UTTERANCE)
    feed(dense, audio(0.8))
    assert dense.expert_counts is None


def test_full_context_counts_are_wenets() -> None:
    arrays, decoded = reference(MODEL)
    state = initial_state(recognizer(MODEL).manifest.caches, -1)
    step = recognizer(MODEL).backend.step(arrays["feats"], state)
    expected = decoded["expert_counts_full"]
    assert recognizer(MODEL).manifest.moe.layers == tuple(expected)
    assert step.expert_counts is not None and step.expert_counts.tolist() == list(expected.values())


def test_positions_never_run_out() -> None:
    """With a table of 100 positions an utterance is cut before it would pass frame 100."""
    loaded = recognizer(MODEL)
    stream = dataclasses.replace(loaded.manifest.stream, max_positions=100)
    manifest = dataclasses.replace(loaded.manifest, stream=stream)
    short = Recognizer(dataclasses.replace(loaded.bundle, manifest=manifest), loaded.backend)
    for options, frames in (
        (ONE_UTTERANCE, 96),
        (DecodeOptions(full_context=True), 100),
        (DecodeOptions(chunk=7, left_chunks=2, endpoint=None), 98),
    ):
        results = feed(short.stream(options), audio(20.0))
        lengths = [r.end_ms - r.start_ms for r in results]
        assert lengths[:-1] == [frames * 40.0] * (len(results) - 1) and lengths[-1] <= frames * 40.0
        assert sum(lengths) == ((1998 - 7) // 4 + 1) * 40.0, "no audio is lost at a forced cut"
    limited = feed(loaded.stream(DecodeOptions(endpoint=None, max_utterance_ms=2000)), audio(5.0))
    assert [r.end_ms - r.start_ms for r in limited] == [1920.0, 1920.0, 1080.0]


def test_a_long_stream_keeps_little() -> None:
    """Three minutes: every buffer stays within what one utterance needs."""
    limit = 10_000.0  # ms
    stream = recognizer("dense_u2pp").stream(
        DecodeOptions(chunk=16, left_chunks=4, beam=4, endpoint=None, rescoring=True, max_utterance_ms=limit)
    )
    block, most = audio(20.0), {"cache": 0, "features": 0, "encoder_out": 0, "nodes": 0}
    results = 0
    for _ in range(9):
        for start in range(0, len(block), 8000):
            results += len(stream.accept(block[start : start + 8000], 16000))
            most["cache"] = max(most["cache"], stream._state.cached)
            most["features"] = max(most["features"], stream._chunker.buffered)
            most["encoder_out"] = max(most["encoder_out"], sum(len(out) for out in stream._encoder_out))
            most["nodes"] = max(most["nodes"], stream._search.nodes)
    assert results == 18 and stream.stats.audio_s == 180.0
    assert most["cache"] == 64
    assert most["features"] < 67
    assert most["encoder_out"] <= 250 and most["nodes"] <= 4 * 250
    assert stream._state.att_cache.base is None, "a view would keep the untrimmed cache alive"
    assert len(stream.stats.chunk_ms) == stream.stats.chunks == 281


def test_one_call_with_much_audio_is_worked_off_in_parts() -> None:
    options = DecodeOptions(full_context=True, max_utterance_ms=5000)
    stream = recognizer("dense_u2pp").stream(options)
    expected = feed(recognizer("dense_u2pp").stream(options), audio(32.0), sizes=(16000,))
    assert stream.accept(audio(32.0), 16000) + stream.finish() == expected and len(expected) == 7


def test_a_second_pass_in_full_context_gives_what_full_context_gives() -> None:
    loaded = recognizer("moe_u2pp")
    sound = audio(6.0)
    full = feed(loaded.stream(DecodeOptions(full_context=True)), sound)
    for chunk in (4, 16):
        stream = loaded.stream(DecodeOptions(chunk=chunk, endpoint=None, reencode=True))
        again = feed(stream, sound)
        assert [r.text for r in again] == [r.text for r in full]
        assert again[0].nbest[0].score == pytest.approx(full[0].nbest[0].score, abs=1e-3)
        assert [t.start_ms for t in again[0].tokens] == [t.start_ms for t in full[0].tokens]
    # The plain stream differs, or this test would show nothing.
    plain = feed(loaded.stream(DecodeOptions(chunk=4, endpoint=None)), sound)
    assert plain[0].nbest[0].score != pytest.approx(full[0].nbest[0].score, abs=1e-3)
