"""A loaded bundle that transcribes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.audio_files import Clip, DamagedAudio, read_blocks
from edge.runtime.bundle import Bundle
from edge.runtime.engines.autoselect import choose
from edge.runtime.engines.base import Backend, Preparing, initial_state
from edge.runtime.engines.choice import Choice
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.threads import load_measured
from edge.runtime.errors import AudioError, BackendError
from edge.runtime.manifest import Manifest
from edge.runtime.options import DecodeOptions, Plan, plan
from edge.runtime.rescoring import pad_hypotheses
from edge.runtime.result import Result
from edge.runtime.stream import Stream

DEFAULT_ENGINE = EngineConfig()
_CLAIM_MS = 60_000.0  # of audio; memory for longer utterances is not claimed in advance


class Recognizer:
    """One bundle loaded into one engine. Any number of streams share it, each with its own state.

    Example::

        recognizer = Recognizer.load("models/reference-int8")
        stream = recognizer.stream(DecodeOptions(chunk_ms=640, left_chunks=4))
        for samples in microphone:
            for result in stream.accept(samples, 16000):
                print(result.text)
            print(stream.partial.text, end="\\r")
        for result in stream.finish():
            print(result.text)
    """

    def __init__(self, bundle: Bundle, backend: Backend, choice: Choice | None = None) -> None:
        self.bundle, self.backend = bundle, backend
        self._claimed = False
        self.choice = choice
        """How the engine, or its number of threads, was chosen; None when there was nothing to choose."""

    @classmethod
    def load(cls, bundle_dir: Path | str, engine: EngineConfig = DEFAULT_ENGINE, *, verify: bool = True) -> Recognizer:
        """Open a bundle and load its graphs.

        Args:
            bundle_dir: what ``u2edge convert`` wrote.
            engine: what computes, where, and with how many threads.
            verify: compare checksums first (about 1 s per GB).

        Raises:
            BundleError: the bundle is incomplete or altered.
            BackendError: the engine is missing, or refuses the graphs.
        """
        if not isinstance(engine, EngineConfig):
            raise BackendError(f"engine: expected an EngineConfig, such as EngineConfig(threads=1), found {engine!r}")
        bundle = Bundle.open(bundle_dir, verify=verify)
        if engine.engine == "auto":
            return cls(bundle, *choose(bundle, engine))
        return cls(bundle, *load_measured(bundle, engine))

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def prepare(self, options: DecodeOptions | None = None) -> Plan:
        """Check ``options`` and get the engine ready for them, so that the first chunk of a stream is as fast as the
        others. What is ready already costs nothing.

        Returns:
            What the options come to with this bundle.

        Raises:
            OptionsError: options outside what the bundle supports; the message lists what it supports.
        """
        chosen = plan(options or DecodeOptions(), self.manifest)
        if isinstance(self.backend, Preparing) and not chosen.full_context:
            self.backend.prepare(chosen.chunk, chosen.left_frames)
        if chosen.reencode and chosen.endpoint is not None:
            self._claim(chosen, chosen.endpoint.longest_ms)
        return chosen

    def stream(self, options: DecodeOptions | None = None) -> Stream:
        """A new stream; arguments and errors as :meth:`prepare`."""
        return Stream(self.bundle, self.backend, self.prepare(options))

    def _claim(self, chosen: Plan, longest_ms: float) -> None:
        """Encode and rescore noise as long as the longest utterance, once.

        The second pass needs memory for a whole utterance, and engines keep what they had: without this a process
        grows whenever an utterance is longer than all before it (by 3 % over three hours with the reference model).
        """
        tokens = self.manifest.tokens
        if self._claimed or longest_ms > _CLAIM_MS:
            return
        self._claimed = True
        frames = min(chosen.max_frames, math.ceil(longest_ms / chosen.frame_ms) + chosen.chunk)
        size = self.manifest.stream.window(frames)
        noise = np.random.default_rng(0).normal(8.0, 2.0, (size, self.manifest.features.num_mel_bins))
        step = self.backend.step(noise.astype(np.float32), initial_state(self.manifest.caches, -1))
        hyps, lens = pad_hypotheses([(tokens.blank,) * (len(step.encoder_out) // 4)] * 2, tokens.sos, tokens.eos)
        self.backend.rescore(hyps, lens, step.encoder_out)

    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodeOptions | None = None
    ) -> Iterator[Result]:
        """Final results of a whole recording, one per utterance, as they come.

        Args:
            source: path of an audio file (read in blocks, so hours are fine), a ``Clip`` of one, or samples as
                ``Stream.accept`` takes them.
            sample_rate: of samples, in Hz; not for a file.
            options: as for :meth:`stream`.

        Raises:
            AudioError, OptionsError: as :meth:`stream` and ``Stream.accept``; damage in a file, after the results of
                what was before it.
        """
        stream = self.stream(options)
        if isinstance(source, (str, Path, Clip)):
            if sample_rate is not None:
                raise AudioError("sample_rate: expected none for a file, which states its own")
            try:
                for samples, rate in read_blocks(source):
                    yield from stream.accept(samples, rate)
            except DamagedAudio:
                yield from stream.finish()  # what was heard before the damage
                raise
        else:
            if sample_rate is None:
                raise AudioError("sample_rate: expected the rate of the samples in Hz, found none")
            yield from stream.accept(source, sample_rate)
        yield from stream.finish()
