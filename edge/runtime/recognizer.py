"""A loaded bundle that transcribes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.audio import read_blocks
from edge.runtime.backend import Backend, Preparing, initial_state
from edge.runtime.bundle import Bundle
from edge.runtime.choice import Choice
from edge.runtime.errors import AudioError
from edge.runtime.manifest import Manifest
from edge.runtime.options import DecodeOptions, Plan, plan
from edge.runtime.probe import choose
from edge.runtime.rescoring import pad_hypotheses
from edge.runtime.result import Result
from edge.runtime.stream import Stream
from edge.runtime.threads import load_measured

_CLAIM_MS = 60_000.0  # of audio; memory for longer utterances is not claimed in advance


class Recognizer:
    """One bundle loaded into one engine. Any number of streams share it, each with its own state.

    Example::

        recognizer = Recognizer.load("models/reference")
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
    def load(
        cls,
        bundle_dir: Path | str,
        engine: str = "onnxruntime",
        device: str = "cpu",
        threads: int | None = None,
        verify: bool = True,
        precision: str = "f32",
    ) -> Recognizer:
        """Open a bundle and load its graphs.

        Args:
            bundle_dir: what ``u2edge convert`` wrote.
            engine: "onnxruntime", "openvino", or "auto": the one that is faster here, found by two seconds of trying
                and remembered for this machine and bundle.
            device: "cpu"; with openvino also "gpu" (an Intel one; the CPU when it cannot be used) or "auto" (a GPU if
                there is one).
            threads: within one operator; None: as many as pay, found by half a second of trying and remembered as
                the engine is (for an encoder above 100 MB: physical cores, at most 4).
            verify: compare checksums first (about 1 s per GB).
            precision: of float arithmetic; "f32", with openvino also "bf16" or "f16" where the device has it.

        Raises:
            BundleError: the bundle is incomplete or altered.
            BackendError: the engine is missing, or refuses the graphs.
        """
        bundle = Bundle.open(bundle_dir, verify=verify)
        if engine == "auto":
            return cls(bundle, *choose(bundle, device, threads, precision))
        return cls(bundle, *load_measured(bundle, engine, device, threads, precision))

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def stream(self, options: DecodeOptions | None = None) -> Stream:
        """A new stream.

        Raises:
            OptionsError: options outside what the bundle supports; the message lists what it supports.
        """
        chosen = plan(options or DecodeOptions(), self.manifest)
        if isinstance(self.backend, Preparing) and not chosen.full_context:
            self.backend.prepare(chosen.chunk, chosen.left_frames)
        if chosen.reencode and chosen.endpoint is not None:
            self._claim(chosen, chosen.endpoint.longest_ms)
        return Stream(self.bundle, self.backend, chosen)

    def _claim(self, chosen: Plan, longest_ms: float) -> None:
        """Encode and rescore noise as long as the longest utterance, once.

        The second pass needs memory for a whole utterance, and engines keep what they had: without this a process
        grows whenever an utterance is longer than all before it (by 3 % over three hours with the reference model).
        """
        stream, tokens = self.manifest.stream, self.manifest.tokens
        if self._claimed or longest_ms > _CLAIM_MS:
            return
        self._claimed = True
        frames = min(chosen.max_frames, math.ceil(longest_ms / chosen.frame_ms) + chosen.chunk)
        size = (frames - 1) * stream.subsampling + stream.right_context + 1
        noise = np.random.default_rng(0).normal(8.0, 2.0, (size, self.manifest.features.num_mel_bins))
        step = self.backend.step(noise.astype(np.float32), initial_state(self.manifest.caches, -1))
        hyps, lens = pad_hypotheses([(tokens.blank,) * (len(step.encoder_out) // 4)] * 2, tokens.sos, tokens.eos)
        self.backend.rescore(hyps, lens, step.encoder_out)

    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodeOptions | None = None
    ) -> Iterator[Result]:
        """Final results of a whole recording, one per utterance, as they come.

        Args:
            source: path of an audio file (read in blocks, so hours are fine), or samples as ``Stream.accept``
                takes them.
            sample_rate: of samples, in Hz; not for a file.
            options: as for :meth:`stream`.

        Raises:
            AudioError, OptionsError: as :meth:`stream` and ``Stream.accept``.
        """
        stream = self.stream(options)
        if isinstance(source, (str, Path)):
            if sample_rate is not None:
                raise AudioError("sample_rate: expected none for a file, which states its own")
            for samples, rate in read_blocks(source):
                yield from stream.accept(samples, rate)
        else:
            if sample_rate is None:
                raise AudioError("sample_rate: expected the rate of the samples in Hz, found none")
            yield from stream.accept(source, sample_rate)
        yield from stream.finish()
