"""Every mode of decoding of a recording in one go: each call of the encoder that modes share is made once."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge.runtime import AudioError, Clip, DecodeOptions, EdgeError, Recognizer, read_blocks
from edge.runtime.engines.base import Backend, Preparing
from edge.runtime.engines.config import EngineConfig
from edge.runtime.state import EncoderState, Step


class CacheError(EdgeError, ValueError):
    """A file that is not a cache of transcripts."""


class SharedEncoder:
    """A backend for streams that hear the same audio in step: a call with the same window and the same state as one
    before is answered from memory. Streams that only differ in rescoring make the same calls, so each costs one.

    What is remembered is kept until :meth:`forget`, which any caller may call at any time.
    """

    def __init__(self, backend: Backend) -> None:
        self.name, self.device, self.threads = backend.name, backend.device, backend.threads
        self.precision = backend.precision
        self.calls = 0  # that reached the engine
        self._backend = backend
        self._known: list[tuple[EncoderState, NDArray[np.float32], Step]] = []

    def forget(self) -> None:
        """Drop what is remembered."""
        self._known.clear()

    def prepare(self, frames: int, left_frames: int) -> None:
        """As :meth:`edge.runtime.engines.base.Preparing.prepare`, where the engine has it."""
        if isinstance(self._backend, Preparing):
            self._backend.prepare(frames, left_frames)

    def step(self, features: NDArray[np.float32], state: EncoderState) -> Step:
        """As :meth:`edge.runtime.engines.base.Backend.step`."""
        for known_state, known_features, step in self._known:
            if _same(known_state, state) and np.array_equal(known_features, features):
                return step
        step = self._backend.step(features, state)
        self.calls += 1
        self._known.append((state, features, step))
        return step

    def rescore(
        self, hyps: NDArray[np.int64], hyps_lens: NDArray[np.int64], encoder_out: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As :meth:`edge.runtime.engines.base.Backend.rescore`; nothing is remembered."""
        return self._backend.rescore(hyps, hyps_lens, encoder_out)


def _same(a: EncoderState, b: EncoderState) -> bool:
    """The same object, as streams that got it from one call hold it; or both before the first chunk."""
    return a is b or (a.offset == b.offset == 0 and a.left_frames == b.left_frames)


def share(recognizer: Recognizer) -> Recognizer:
    """``recognizer`` over a :class:`SharedEncoder`; once per engine, as what a recognizer does at its first stream is
    then not done for every recording."""
    return Recognizer(recognizer.bundle, cast(Backend, SharedEncoder(recognizer.backend)))  # load() is not for streams


def transcribe(recognizer: Recognizer, audio: Path | Clip, options: Sequence[DecodeOptions]) -> list[str]:
    """The text of ``audio`` under each of ``options``: what ``recognizer.transcribe`` gives for each alone.

    Args:
        recognizer: loaded, or made by :func:`share` of one.

    Raises:
        AudioError: a file that cannot be read; the message names it.
    """
    together = recognizer if isinstance(recognizer.backend, SharedEncoder) else share(recognizer)
    shared = cast(SharedEncoder, together.backend)
    shared.forget()
    streams = [together.stream(o) for o in options]
    texts: list[list[str]] = [[] for _ in streams]
    try:
        for samples, rate in read_blocks(audio):
            for stream, text in zip(streams, texts):
                text += [result.text for result in stream.accept(samples, rate)]
            shared.forget()
    except AudioError as error:
        raise AudioError(str(error) if str(audio) in str(error) else f"{audio}: {error}") from None
    for stream, text in zip(streams, texts):
        text += [result.text for result in stream.finish()]
    shared.forget()
    return [" ".join(text) for text in texts]


@dataclass(frozen=True)
class Work:
    """How the work is done; texts do not depend on it."""

    jobs: int = 1  # processes
    skip_bad: bool = False  # leave out recordings that cannot be used
    cache: Path | None = None


@dataclass(frozen=True)
class Task:
    """One recording, and the options whose text is wanted."""

    audio: Path | Clip
    options: tuple[DecodeOptions, ...]


Outcome = list[str] | AudioError
"""Texts in the order of the task's options, or why there are none."""


def transcribe_all(recognizer: Recognizer, tasks: Sequence[Task], jobs: int = 1) -> Generator[Outcome, None, None]:
    """Outcomes in the order of ``tasks``, as they come.

    Args:
        recognizer: with more than one job, each process loads its bundle again, with as many threads.
        tasks: recordings.
        jobs: processes; they are started fresh, so a script that calls this needs ``if __name__ == "__main__":``.
    """
    if min(jobs, len(tasks)) <= 1:
        recognizer = share(recognizer)
        for task in tasks:
            yield _outcome(recognizer, task)
        return
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)),
        mp_context=get_context("spawn"),
        initializer=_load,
        initargs=(recognizer.bundle.directory, EngineConfig.of(recognizer.backend)),
    )
    try:
        yield from pool.map(_work, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_loaded: list[Recognizer] = []  # of a process of the pool


def _load(bundle: Path, engine: EngineConfig) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _loaded.append(share(Recognizer.load(bundle, engine, verify=False)))


def _work(task: Task) -> Outcome:
    return _outcome(_loaded[0], task)


def _outcome(recognizer: Recognizer, task: Task) -> Outcome:
    try:
        return transcribe(recognizer, task.audio, task.options)
    except AudioError as error:
        return error


class Cache:
    """Transcripts kept in a JSONL file, one line per recording and mode, so that an interrupted measurement goes on
    and a repeated one costs nothing.

    A key covers bundle, engine with device and precision, options and the audio's bytes; not the recognizer's own
    code: delete the file after changing that. Several processes may append to one file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, str] = {}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self._texts[row["key"]] = row["text"]
            except (ValueError, KeyError, TypeError):
                if line.strip() and not line.startswith('{"key"'):  # else: cut off when a run was killed
                    raise CacheError(
                        f"{path}:{number}: expected a line of a transcript cache, found {line[:40]!r}; "
                        "name another file, or delete this one"
                    ) from None
        if last:
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def get(self, key: str) -> str | None:
        """The text kept under ``key``."""
        return self._texts.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep ``text``; it is on disk when this returns."""
        self._texts[key] = text
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "text": text}, ensure_ascii=False) + "\n")


def digest(*parts: object) -> str:
    """SHA-256 of the JSON of ``parts``."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
