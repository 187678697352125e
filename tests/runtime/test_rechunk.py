"""A stream that changes its chunks on the way, against one pass of the torch model under a mask written out here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_helpers import audio, feed

from edge.runtime import DecodeOptions, OptionsError, Recognizer, Stream, StreamError
from edge.runtime.audio import to_mono_float
from edge.runtime.engines.config import EngineConfig
from edge.runtime.features import StreamingFbank
from edge.runtime.search import CtcPrefixBeamSearch

pytest.importorskip("edge.export.convert", reason="converting needs the 'convert' extra (torch, onnx)")

Array = NDArray[Any]
Schedule = list[tuple[int, int, int]]  # (chunks, frames per chunk, left chunks); the last goes on to the end
Chunks = list[tuple[int, int]]  # (encoder frames, frames of left context kept: -1 all) of every chunk

CASES: dict[str, dict[str, Any]] = {
    "moe": {},
    "batch_norm": {"encoder_conf": {"cnn_module_norm": "batch_norm", "cnn_module_kernel": 8}},
    "conv2d6": {"encoder_conf": {"input_layer": "conv2d6"}},
    "conv2d8_absolute": {"encoder_conf": {"input_layer": "conv2d8", "pos_enc_layer_type": "abs_pos"}},
    "transformer": {"encoder": "transformer"},
}
SCHEDULES: list[Schedule] = [
    [(2, 16, -1), (9, 32, -1)],
    [(3, 4, 2), (2, 9, 1), (4, 2, 0), (3, 3, 5), (9, 8, -1)],
    [(2, 16, 4), (5, 4, 16), (9, 32, 2)],  # the demo's: as much history in ms
    [(1, 1, 0), (1, 20, -1), (6, 1, 3), (9, 16, 4)],
]
SECONDS = 6.0


class Recording:
    """A backend that notes what went in and came out."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.steps = backend, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def step(self, features: Array, state: Any) -> Any:
        step = self.backend.step(features, state)
        self.steps.append((features, step))
        return step

    @property
    def log_probs(self) -> Array:
        return np.concatenate([step.log_probs for _, step in self.steps])

    @property
    def encoder_out(self) -> Array:
        return np.concatenate([step.encoder_out for _, step in self.steps])


@pytest.fixture(scope="module")
def tiny(make_experiment: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Recognizer]]:
    """``tiny(case)``: an experiment with random weights, and its bundle loaded."""
    import torch
    from model_helpers import cmvn_json

    from edge.export.convert import convert
    from edge.runtime.manifest import FeatureOptions

    features = StreamingFbank(FeatureOptions(num_mel_bins=20)).accept(to_mono_float(audio(SECONDS)))

    made: dict[str, tuple[Path, Recognizer]] = {}

    def get(case: str = "moe") -> tuple[Path, Recognizer]:
        if case not in made:
            folder = make_experiment(**CASES[case])
            state = torch.load(folder / "final.pt")  # with statistics of the sound used here: else everything saturates
            state["encoder.global_cmvn.mean"] = torch.from_numpy(features.mean(axis=0))
            state["encoder.global_cmvn.istd"] = torch.from_numpy(1.0 / features.std(axis=0))
            torch.save(state, folder / "final.pt")
            (folder / "global_cmvn").write_text(cmvn_json(state), encoding="utf-8")
            bundle = convert(folder, tmp_path_factory.mktemp("bundle") / case)
            made[case] = folder, Recognizer.load(bundle.directory, EngineConfig(threads=1))
        return made[case]

    return get


def recording(recognizer: Recognizer, options: DecodeOptions) -> tuple[Stream, Recording]:
    backend: Any = Recording(recognizer.backend)
    return Recognizer(recognizer.bundle, backend).stream(options), backend


def fbank(recognizer: Recognizer, samples: Array) -> Array:
    return StreamingFbank(recognizer.manifest.features).accept(to_mono_float(samples))


def closed_form(chunks: Chunks) -> NDArray[np.bool_]:
    """(frames, frames), True = attend: a frame sees its own chunk, and before it what its chunk and the one before it
    were allowed to keep, of what had not gone earlier."""
    frames = sum(count for count, _ in chunks)
    mask = np.zeros((frames, frames), np.bool_)
    start = first = 0
    before = -1
    for count, left in chunks:
        first = max([first, *(start - kept for kept in (before, left) if kept >= 0)])
        mask[start : start + count, first : start + count] = True
        start, before = start + count, left
    return mask


def masked(folder: Path, features: Array, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """(encoder output, CTC log-probabilities) of one pass of the torch model over all features."""
    import torch

    from edge.model.checkpoint import load_experiment

    model = load_experiment(folder).build()
    encoder = model.encoder
    with torch.inference_mode():
        x, positions = encoder.embed(encoder.global_cmvn(torch.from_numpy(features)[None]))
        assert x.size(1) == len(mask)
        valid = torch.ones(1, 1, x.size(1), dtype=torch.bool)
        for layer in encoder.encoders:
            x, _, _ = layer(x, torch.from_numpy(mask)[None], positions, valid, None, None)
        x = encoder._finish(x)
        return x[0].numpy(), model.ctc(x)[0].numpy()


def on_schedule(stream: Stream, options: DecodeOptions, schedule: Schedule, samples: Array) -> list[Any]:
    """Feed ``samples`` in blocks of 10 ms; chunks change as soon as the last one of a length is decoded."""
    due = iter([(sum(n for n, *_ in schedule[:i]), chunk, left) for i, (_, chunk, left) in enumerate(schedule)][1:])
    following: Any = next(due, None)
    results = []
    for at in range(0, len(samples), 160):
        results += stream.accept(samples[at : at + 160], 16000)
        if following and stream.stats.chunks == following[0]:
            stream.rechunk(dataclasses.replace(options, chunk=following[1], left_chunks=following[2]))
            following = next(due, None)
    assert following is None, "the audio is too short for the schedule"
    return results + stream.finish()


def chunks_of(schedule: Schedule, frames: int) -> Chunks:
    """Every chunk of ``schedule`` in ``frames`` encoder frames; the last one may be short."""

    def each() -> Iterator[tuple[int, int]]:
        for count, chunk, left in schedule:
            for _ in range(count):
                yield chunk, -1 if left < 0 else left * chunk
        while True:
            yield chunk, -1 if left < 0 else left * chunk

    found, total = [], 0
    for chunk, left in each():
        found.append((min(chunk, frames - total), left))
        total += found[-1][0]
        if total == frames:
            return found
    raise AssertionError


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "-".join(str(chunk) for _, chunk, _ in s))
@pytest.mark.parametrize("case", CASES)
def test_any_schedule_is_one_masked_pass(tiny: Any, case: str, schedule: Schedule) -> None:
    folder, recognizer = tiny(case)
    samples = audio(SECONDS)
    features = fbank(recognizer, samples)
    options = DecodeOptions(chunk=schedule[0][1], left_chunks=schedule[0][2], endpoint=None, reencode=False)
    stream, seen = recording(recognizer, options)
    results = on_schedule(stream, options, schedule, samples)

    frames = recognizer.manifest.stream.encoder_frames(len(features))
    chunks = chunks_of(schedule, frames)
    assert [len(step.encoder_out) for _, step in seen.steps] == [count for count, _ in chunks]
    encoder_out, log_probs = masked(folder, features, closed_form(chunks))
    assert np.abs(seen.encoder_out - encoder_out).max() < 1e-4
    assert np.abs(seen.log_probs - log_probs).max() < 1e-4

    # The text and its times are those of one search over that pass: hypotheses and clock were never started anew.
    search = CtcPrefixBeamSearch(10, 0)
    search.advance(log_probs)
    ranked = {h.tokens: h for h in search.nbest()}
    (result,) = results
    best = ranked[tuple(token.id for token in result.tokens)]
    frame_ms = stream.plan.frame_ms
    assert (result.start_ms, result.end_ms, result.segment) == (0.0, frames * frame_ms, 0)
    assert len(result.tokens) > 5
    for token, time in zip(result.tokens, best.times, strict=True):
        assert token.start_ms <= time * frame_ms <= token.end_ms


def test_another_mask_would_be_noticed(tiny: Any) -> None:
    """Otherwise the test above could not fail."""
    folder, recognizer = tiny()
    features = fbank(recognizer, audio(SECONDS))
    frames = recognizer.manifest.stream.encoder_frames(len(features))
    masks = [closed_form(chunks_of(schedule, frames)) for schedule in SCHEDULES]
    masks += [closed_form(chunks_of([(1, chunk, -1)], frames)) for chunk in (16, 32)]
    outputs = [masked(folder, features, mask)[0] for mask in masks]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert np.abs(one - other).max() > 1e-2


def test_chunks_that_change_in_the_middle_of_one(tiny: Any) -> None:
    """Frames that wait for a chunk count for the next length; a smaller one may be complete already."""
    folder, recognizer = tiny()
    samples = audio(4.0)
    features = fbank(recognizer, samples)
    options = DecodeOptions(chunk=32, left_chunks=1, endpoint=None, reencode=False)
    stream, seen = recording(recognizer, options)
    assert stream.accept(samples[: 16 * 2700], 16000) == [] and stream.stats.chunks == 2
    stream.rechunk(dataclasses.replace(options, chunk=40, left_chunks=2))
    stream.rechunk(dataclasses.replace(options, chunk=1, left_chunks=8))
    assert stream.stats.chunks == 2, "nothing is decoded before there is somebody to take the results"
    assert stream.accept(samples[16 * 2700 : 16 * 2701], 16000) == []
    # 268 feature frames: 66 encoder frames, 64 of them in the two chunks before.
    assert stream.stats.chunks == 4 and stream.partial.end_ms == 66 * 40.0
    stream.rechunk(dataclasses.replace(options, chunk=16, left_chunks=2))
    stream.accept(samples[16 * 2701 :], 16000)
    stream.finish()
    frames = recognizer.manifest.stream.encoder_frames(len(features))
    chunks = [(32, 32), (32, 32), (1, 8), (1, 8), (16, 32), (frames - 82, 32)]
    expected, _ = masked(folder, features, closed_form(chunks))
    assert [len(step.encoder_out) for _, step in seen.steps] == [count for count, _ in chunks]
    assert np.abs(seen.encoder_out - expected).max() < 1e-4


@pytest.mark.parametrize("options", [DecodeOptions(chunk=8, left_chunks=2), DecodeOptions(full_context=True)])
def test_the_same_length_changes_nothing(tiny: Any, options: DecodeOptions) -> None:
    _, recognizer = tiny()
    samples = audio(SECONDS)
    plain, seen = recording(recognizer, options)
    expected = feed(plain, samples)
    again, seen_again = recording(recognizer, options)
    results = []
    for at in range(0, len(samples), 1600):
        state = again._state
        again.rechunk(options)
        assert again._state is state
        results += again.accept(samples[at : at + 1600], 16000)
    assert results + again.finish() == expected != []
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(seen.steps, seen_again.steps, strict=True))
    assert np.array_equal(seen.log_probs, seen_again.log_probs)


def test_the_second_pass_hears_the_whole_utterance(tiny: Any) -> None:
    _, recognizer = tiny()
    samples = audio(SECONDS)
    (full,) = feed(recognizer.stream(DecodeOptions(full_context=True)), samples)
    options = DecodeOptions(chunk=16, left_chunks=4, endpoint=None, reencode=True)
    (mixed,) = on_schedule(recognizer.stream(options), options, SCHEDULES[2], samples)
    assert mixed.text == full.text != ""
    assert mixed.nbest[0].score == pytest.approx(full.nbest[0].score, abs=1e-3)
    assert [t.start_ms for t in mixed.tokens] == [t.start_ms for t in full.tokens]


def test_the_endpoint_goes_on_counting(tiny: Any) -> None:
    from edge.runtime import EndpointOptions, EndpointRule

    off = EndpointRule(True, float("inf"), 0.0)
    rules = EndpointOptions(rule1=off, rule2=off, rule3=EndpointRule(False, 0.0, 1600.0))
    _, recognizer = tiny()
    options = DecodeOptions(chunk=16, endpoint=rules)
    results = on_schedule(recognizer.stream(options), options, [(1, 16, -1), (9, 4, -1)], audio(4.0))
    # 640 ms, then 160 ms at a time: 1600 ms is reached after six of those.
    assert [(r.start_ms, r.end_ms) for r in results[:2]] == [(0.0, 1600.0), (1600.0, 3200.0)]
    assert [r.segment for r in results] == list(range(len(results)))


def test_what_a_stream_cannot_change(tiny: Any) -> None:
    _, recognizer = tiny()
    samples = audio(3.0)
    options = DecodeOptions(chunk=16, endpoint=None)
    expected = feed(recognizer.stream(options), samples)
    stream = recognizer.stream(options)
    stream.accept(samples[:20000], 16000)
    plan, state = stream.plan, stream._state
    for wrong, message in (
        ({"beam": 4}, r"beam: expected 10 as before in this stream.*found 4; start a new stream"),
        ({"rescoring": False}, "rescoring: expected True as before"),
        ({"chunk": None, "full_context": True}, "full_context: expected False as before"),
        ({"chunk": 0}, "chunk: found 0 frames; supported: chunk 1"),
        ({"chunk": None, "chunk_ms": 333.0}, "nearest: 320 or 360"),
        ({"left_chunks": -2}, "left_chunks: expected -1"),
    ):
        with pytest.raises(OptionsError, match=message):
            stream.rechunk(dataclasses.replace(options, **wrong))
    assert stream.plan is plan and stream._state is state
    assert stream.accept(samples[20000:], 16000) + stream.finish() == expected
    with pytest.raises(StreamError, match=r"after finish\(\)"):
        stream.rechunk(options)


def test_a_model_of_one_chunk_size_keeps_it(tiny: Any) -> None:
    _, recognizer = tiny()
    one = dataclasses.replace(recognizer.manifest.stream, static_chunk=16)
    bundle = dataclasses.replace(recognizer.bundle, manifest=dataclasses.replace(recognizer.manifest, stream=one))
    stream = Recognizer(bundle, recognizer.backend).stream(DecodeOptions(endpoint=None))
    stream.accept(audio(2.0), 16000)
    with pytest.raises(OptionsError, match=r"found 8 frames; supported: chunk 16 \(640 ms\)"):
        stream.rechunk(DecodeOptions(chunk=8, endpoint=None))
    stream.rechunk(DecodeOptions(left_chunks=1, endpoint=None))
    assert stream._state.cached == 16 and stream._state.att_cache.base is None
