"""Recognizers are loaded, checked and warmed on a thread of their own, while the old ones go on."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.events import Lane
from demo.session.overload import ladder
from demo.settings import Settings
from edge.runtime import DecodeOptions, EngineConfig, OptionsError, Recognizer
from edge.runtime.engines.threads import thread_count
from edge.runtime.options import plan

KEPT = 4  # recognizers kept after use, so that going back is instant

Done = Callable[["list[Prepared] | BaseException"], None]
_Key = tuple[str, int, EngineConfig]


@dataclass(frozen=True)
class Prepared:
    """A recognizer that has computed with these options before, and what to do when they turn out too slow."""

    recognizer: Recognizer
    options: DecodeOptions
    lane: Lane
    fallbacks: tuple[DecodeOptions, ...]  # with larger chunks, in order; may be empty


class Loader:
    """Loads what settings ask for. One request waits at most: a newer one takes its place."""

    def __init__(self, verify: bool = True) -> None:
        self._verify = verify
        self._cache: OrderedDict[_Key, Recognizer] = OrderedDict()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._newest = 0
        self._thread = threading.Thread(target=self._work, name="u2edge-loader", daemon=True)
        self._thread.start()

    def load(self, settings: Settings, done: Done) -> None:
        """Prepare the lanes of ``settings``; ``done`` gets them, or what went wrong, on the loader's thread.

        A request that is overtaken by a newer one before it is begun is never answered.
        """
        self._newest += 1
        number = self._newest

        def task() -> None:
            if number == self._newest:
                done(_attempt(lambda: self._prepare_all(settings)))

        self._tasks.put(task)

    def warm(self, prepared: list[Prepared], level: int, done: Callable[[], None]) -> None:
        """Make the fallback of ``level`` ready; ``done`` is called on the loader's thread."""

        def task() -> None:
            for item in prepared:
                if item.fallbacks:
                    options = item.fallbacks[min(level, len(item.fallbacks)) - 1]
                    _attempt(lambda item=item, options=options: item.recognizer.prepare(options))  # type: ignore[misc]
            done()

        self._tasks.put(task)

    def close(self, timeout_s: float) -> None:
        """Wait for what is being loaded, but not longer than this."""
        self._newest += 1
        self._tasks.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _prepare_all(self, settings: Settings) -> list[Prepared]:
        options = settings.decode()
        found = [self._recognizer(bundle, settings) for bundle in settings.bundles]
        for recognizer in found:
            recognizer.prepare(options)
        while len(self._cache) > KEPT:
            self._cache.popitem(last=False)
        return [_prepared(index, recognizer, options) for index, recognizer in enumerate(found)]

    def _recognizer(self, bundle: Path, settings: Settings) -> Recognizer:
        try:
            changed = (bundle / "manifest.json").stat().st_mtime_ns
        except OSError:
            changed = 0  # loading it will say what is wrong
        key = (str(bundle.absolute()), changed, settings.engine)
        if key not in self._cache:
            self._cache[key] = Recognizer.load(bundle, settings.engine, verify=self._verify)
        self._cache.move_to_end(key)
        return self._cache[key]


def _attempt(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # whatever an engine throws must not end the thread
        return error


def _prepared(index: int, recognizer: Recognizer, options: DecodeOptions) -> Prepared:
    manifest, backend = recognizer.manifest, recognizer.backend
    chosen = plan(options, manifest)
    lane = Lane(
        index=index,
        title=f"{manifest.name}, {manifest.encoder.scheme}, {backend.name} on {backend.device}, "
        f"{thread_count(backend.threads)}",
        bundle=manifest.name,
        scheme=manifest.encoder.scheme,
        engine=backend.name,
        device=backend.device,
        threads=backend.threads,
        chunk_ms=chosen.chunk_ms,
        left_chunks=options.left_chunks,
        moe_layers=manifest.moe.layers,
        experts=manifest.moe.experts,
        active=manifest.moe.active,
    )
    fallbacks = []
    for chunk_ms in ladder(chosen.chunk_ms)[1:]:
        left = options.left_chunks
        if left > 0:  # as much history as was chosen, in ms
            left = max(1, round(left * chosen.chunk_ms / chunk_ms))
        slower = dataclasses.replace(options, chunk_ms=chunk_ms, left_chunks=left)
        try:
            plan(slower, manifest)
        except OptionsError:
            continue
        fallbacks.append(slower)
    return Prepared(recognizer, options, lane, tuple(fallbacks))
