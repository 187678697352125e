"""One stream of audio through the recognizer: features, chunks, search, endpoint, rescoring."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.runtime.audio import Resampler, Samples, check_sample_rate, checked
from edge.runtime.bundle import Bundle
from edge.runtime.channels import ChannelMixer
from edge.runtime.chunker import FrameChunker, Frames
from edge.runtime.endpoint import Endpointer
from edge.runtime.engines.base import Backend, Preparing, initial_state
from edge.runtime.errors import StreamError
from edge.runtime.features import StreamingFbank
from edge.runtime.options import DecodeOptions, Plan, replan
from edge.runtime.rescoring import attention_rescoring
from edge.runtime.result import Hypothesis, Result, Token
from edge.runtime.search import CtcHypothesis, CtcPrefixBeamSearch
from edge.runtime.state import EncoderState
from edge.runtime.stats import StreamStats
from edge.runtime.timestamps import token_spans

_BLOCK_S = 10.0  # seconds of audio turned into features at a time, so that one long call needs no more memory


class Stream:
    """Transcribes audio as it arrives. Made by ``Recognizer.stream()``; for one thread at a time.

    What is kept is bounded: features of one window, caches and encoder output of the current utterance, and the
    utterance itself is cut before the model's position table ends. Final results are returned, never stored.
    """

    def __init__(self, bundle: Bundle, backend: Backend, plan: Plan) -> None:
        self.plan = plan
        self.stats = StreamStats()
        self._manifest, self._tokens, self._backend = bundle.manifest, bundle.tokens, backend
        features, stream, tokens = self._manifest.features, self._manifest.stream, self._manifest.tokens
        self._sample_rate: int | None = None
        self._resampler: Resampler | None = None
        self._mixer = ChannelMixer(1)
        self._fbank = StreamingFbank(features)
        self._chunker = FrameChunker(stream, plan.chunk, features.num_mel_bins)
        self._search = CtcPrefixBeamSearch(plan.beam, tokens.blank)
        self._endpointer = Endpointer(plan.endpoint, tokens.blank, plan.frame_ms) if plan.endpoint else None
        self._expert_counts: NDArray[np.int64] | None = None
        self._finished = False
        self._started = 0.0
        self._segment = 0
        self._shown: Result | None = None  # partial, until the next chunk
        self._state: EncoderState
        self._reset()

    def accept(self, samples: Any, sample_rate: int) -> list[Result]:
        """Take more audio, of any length, and decode every chunk it completes.

        Args:
            samples: int16, int32, float32 or float64 of shape (n,) or (n, channels); see ``audio.checked``.
            sample_rate: in Hz, the same in every call; resampled to the model's.

        Returns:
            Final results of the utterances that ended in this call, oldest first; often none.

        Raises:
            AudioError: unusable samples; nothing of this call was taken and the stream can go on.
            StreamError: after ``finish()``, or another sample rate than before.
        """
        if self._finished:
            raise StreamError("expected no audio after finish(); start a new one: recognizer.stream()")
        rate = check_sample_rate(sample_rate)
        if self._sample_rate is not None and rate != self._sample_rate:
            raise StreamError(
                f"expected {self._sample_rate} Hz as before in this stream, found {rate} Hz; "
                "resample the audio, or finish() and start a new stream"
            )
        began = time.perf_counter()
        block = checked(samples)
        if self._resampler is None:
            self._sample_rate, self._started = rate, began
            self._mixer = ChannelMixer(rate)
            self._resampler = Resampler(rate, self._manifest.features.sample_rate)
        mono = self._mixer.accept(block)
        self.stats.feature_s += time.perf_counter() - began
        results: list[Result] = []
        size = int(_BLOCK_S * rate)
        for start in range(0, len(mono), size):
            part = mono[start : start + size]
            began = time.perf_counter()
            resampled = self._resampler.accept(part)
            self.stats.feature_s += time.perf_counter() - began
            self.stats.audio_s += len(part) / rate
            results += self._advance(resampled)
        return results

    def rechunk(self, options: DecodeOptions) -> None:
        """Go on with chunks of another length or another left context, also in the middle of a word.

        Caches, hypotheses, endpoint and times go on as they are; only the windows of the next chunks are cut
        otherwise. Nothing is decoded here: chunks that earlier audio completes already come with the next samples.
        A longer left context fills as the utterance goes on. An engine that prepares itself for a chunk size does so
        here, unless ``Recognizer.stream`` was asked for it before.

        Args:
            options: as the stream was made with, except ``chunk``, ``chunk_ms`` and ``left_chunks``.

        Raises:
            OptionsError: other options differ too, or the bundle does not support these; the stream is as it was.
            StreamError: after ``finish()``.
        """
        if self._finished:
            raise StreamError("expected no other chunks after finish(); start a new stream: recognizer.stream(options)")
        changed = replan(self.plan, options, self._manifest)
        if changed == self.plan:
            return
        if isinstance(self._backend, Preparing):
            self._backend.prepare(changed.chunk, changed.left_frames)
        self.plan = changed
        self._chunker.rechunk(changed.chunk)
        self._state = self._state.keeping(changed.left_frames)

    def finish(self) -> list[Result]:
        """End the stream: decode what is left and close the last utterance.

        Returns:
            Final results of the utterances that ended; none when the rest was silence. A second call returns none.
        """
        if self._finished:
            return []
        self._finished = True
        results = self._advance(self._resampler.finish()) if self._resampler else []
        window = self._chunker.final()
        if window is not None:
            results += self._decode(window, last=True)
        return results + self._end_utterance()

    @property
    def partial(self) -> Result:
        """The current utterance so far: the best CTC hypothesis, before rescoring. Empty between utterances."""
        if self._shown is None:
            hypothesis = self._search.best
            self._shown = self._result(hypothesis, hypothesis.confidences, None, is_final=False)
        return self._shown

    @property
    def channel_note(self) -> str:
        """One sentence when only one of several channels is heard, because mixed they cancel or are mostly silent."""
        return self._mixer.told()

    @property
    def finished(self) -> bool:
        """Whether ``finish()`` was called."""
        return self._finished

    @property
    def expert_counts(self) -> NDArray[np.int64] | None:
        """(MoE layers, experts): frames routed to each expert in the last chunk; None without MoE or before it."""
        return self._expert_counts

    def _reset(self) -> None:
        """Start a new utterance where the last one ended (WeNet's ``ResetContinuousDecoding``)."""
        self._state = initial_state(self._manifest.caches, self.plan.left_frames)
        self._encoder_out: list[NDArray[np.float32]] = []
        self._windows: list[tuple[Frames, int]] = []  # and how many of its frames are before the next one
        self._start = self._chunker.position * self._manifest.features.frame_shift_ms  # ms
        self._search.reset()
        if self._endpointer:
            self._endpointer.reset()
        self._shown = None

    def _advance(self, samples: Samples) -> list[Result]:
        began = time.perf_counter()
        self._chunker.push(self._fbank.accept(samples))
        self.stats.feature_s += time.perf_counter() - began
        results: list[Result] = []
        while (window := self._chunker.next()) is not None:
            results += self._decode(window)
        return results

    def _decode(self, window: Frames, last: bool = False) -> list[Result]:
        """Encode and search one window; the results of utterances that ended before or with it."""
        results: list[Result] = []
        if self._state.offset + self._manifest.stream.encoder_frames(len(window)) > self.plan.max_frames:
            results += self._end_utterance()
        began = time.perf_counter()
        step = self._backend.step(window, self._state)
        encoded = time.perf_counter()
        self._state, self._expert_counts, self._shown = step.state, step.expert_counts, None
        self._search.advance(step.log_probs)
        searched = time.perf_counter()
        if self.plan.reencode:
            self._windows.append((window, self._chunker.stride))
        elif self.plan.rescoring:
            self._encoder_out.append(step.encoder_out)
        self._account(began, encoded, searched)
        # As in WeNet, the last chunk of the stream is not asked for an endpoint: finish() ends the utterance.
        decoded = self._search.decoded_something()
        if self._endpointer and not last and self._endpointer.advance(step.log_probs, decoded):
            results += self._end_utterance()
        return results

    def _account(self, began: float, encoded: float, searched: float) -> None:
        stats = self.stats
        stats.chunks += 1
        stats.encoder_s += encoded - began
        stats.search_s += searched - encoded
        stats.chunk_ms.append((searched - began) * 1000.0)
        if stats.first_partial_audio_ms is None and self._search.decoded_something():
            features = self._manifest.features
            last = self._chunker.covered - 1
            stats.first_partial_audio_ms = last * features.frame_shift_ms + features.frame_length_ms
            stats.first_partial_wall_ms = (searched - self._started) * 1000.0

    def _end_utterance(self) -> list[Result]:
        """Rescore and close the current utterance.

        No text gives no result, and the attention decoders are not asked: they never saw empty speech in
        training and would find words in silence. (So does WeNet's runtime, ``DecodedSomething``.)
        """
        results = []
        if self._search.decoded_something():
            result = self._rescored() if self.plan.rescoring else self._ctc_only()
            if result.text:  # a lone word boundary or special token, as noise can give, is nothing to show
                results.append(result)
                self.stats.utterances += 1
                self._segment += 1
        self._reset()
        return results

    def _full_context(self) -> tuple[list[CtcHypothesis], NDArray[np.float32]]:
        """Hypotheses and encoder output (frames, dim) of the finished utterance, encoded again as a whole.

        The first pass stays in charge of what was said at all: when the second one hears nothing, the first's
        hypotheses are rescored.
        """
        *windows, (last, _) = self._windows
        features = np.concatenate([*(window[:stride] for window, stride in windows), last])
        step = self._backend.step(features, initial_state(self._manifest.caches, -1))
        search = CtcPrefixBeamSearch(self.plan.beam, self._manifest.tokens.blank)
        search.advance(step.log_probs)
        return (search if search.decoded_something() else self._search).nbest(), step.encoder_out

    def _rescored(self) -> Result:
        began = time.perf_counter()
        tokens = self._manifest.tokens
        if self.plan.reencode:
            nbest, encoder_out = self._full_context()
        else:
            nbest, encoder_out = self._search.nbest(), np.concatenate(self._encoder_out)
        ranked = attention_rescoring(
            nbest,
            self._backend.rescore,
            encoder_out,
            sos=tokens.sos,
            eos=tokens.eos,
            vocabulary=tokens.size,
            ctc_weight=self.plan.ctc_weight,
            reverse_weight=self.plan.reverse_weight,
        )
        self.stats.rescoring_s += time.perf_counter() - began
        listed = tuple(
            Hypothesis(
                self._tokens.text(r.hypothesis.tokens),
                r.hypothesis.tokens,
                r.score,
                r.hypothesis.score,
                r.attention_score,
            )
            for r in ranked[: self.plan.nbest]
        )
        best = ranked[0]
        return self._result(best.hypothesis, best.token_confidences, best.confidence, True, listed)

    def _ctc_only(self) -> Result:
        ranked = self._search.nbest()
        nbest = tuple(
            Hypothesis(self._tokens.text(h.tokens), h.tokens, h.score, h.score) for h in ranked[: self.plan.nbest]
        )
        return self._result(ranked[0], ranked[0].confidences, None, True, nbest)

    def _result(
        self,
        hypothesis: CtcHypothesis,
        confidences: tuple[float, ...],
        confidence: float | None,
        is_final: bool,
        nbest: tuple[Hypothesis, ...] = (),
    ) -> Result:
        spans = token_spans(hypothesis.times, self.plan.frame_ms)
        tokens = tuple(
            Token(index, self._tokens.symbols[index], self._start + start, self._start + end, probability)
            for index, (start, end), probability in zip(hypothesis.tokens, spans, confidences, strict=True)
        )
        if confidence is None:
            confidence = sum(confidences) / len(confidences) if confidences else 1.0
        return Result(
            text=self._tokens.text(hypothesis.tokens),
            start_ms=self._start,
            end_ms=self._start + self._state.offset * self.plan.frame_ms,
            is_final=is_final,
            segment=self._segment,
            confidence=confidence,
            words=self._tokens.words(tokens),
            tokens=tokens,
            nbest=nbest,
        )
