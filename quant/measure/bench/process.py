"""Load time and memory of a bundle, each measured in a process of its own: what one bundle left behind must not count
for another."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.runtime.engines.config import EngineConfig
from edge.runtime.errors import EdgeError
from edge.runtime.options import DecodeOptions
from quant.measure.bench.machine import peak_mb, resident_mb

_TIMEOUT_S = 600


class ProcessError(EdgeError, RuntimeError):
    """The process that was to be measured failed."""


@dataclass(frozen=True)
class Process:
    """A fresh process that loads the bundle and transcribes: medians of a few. MB are 2**20 bytes."""

    processes: int
    import_ms: float  # the recognizer and its engine, before any bundle
    load_ms: float  # files in the page cache; checksums, both graphs, ready to transcribe
    idle_mb: float | None  # resident before the bundle is loaded: Python, numpy, the engine
    loaded_mb: float | None  # resident with the bundle loaded
    peak_mb: float | None  # highest, after transcribing with the options of the bench

    @property
    def added_mb(self) -> float | None:
        """Peak less idle: what the bundle and its use add to the process."""
        return None if self.peak_mb is None or self.idle_mb is None else self.peak_mb - self.idle_mb


def measure_processes(
    bundles: Sequence[tuple[Path, EngineConfig]],
    options: DecodeOptions,
    audio: Path | None,
    longest_s: float,
    processes: int = 3,
) -> list[Process]:
    """Start ``processes`` fresh processes per bundle, in turn, and give the medians of each bundle.

    Args:
        bundles: directories, and what runs each. Graphs that an engine keeps compiled are found by all processes.
        options: how each process transcribes; the endpoint is off.
        audio: what it transcribes; None: 10 s of noise.
        longest_s: seconds of it.
        processes: per bundle.

    Raises:
        ProcessError: a process failed; the message has its last line.
    """
    decode = {name: value for name, value in asdict(options).items() if name != "endpoint"}
    found: list[list[dict[str, Any]]] = [[] for _ in bundles]
    for _ in range(processes):
        for (bundle, engine), rows in zip(bundles, found):
            task = {
                "engine": asdict(engine),
                "bundle": str(bundle),
                "decode": decode,
                "audio": str(audio) if audio else None,
                "longest_s": longest_s,
            }
            rows.append(_run(task))
    return [_median(rows) for rows in found]


def _run(task: dict[str, Any]) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "quant.measure.bench.process", json.dumps(task)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ProcessError(f"{task['bundle']}: expected a process that transcribes, it failed: {reason}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _median(rows: list[dict[str, Any]]) -> Process:
    def of(name: str) -> Any:
        values = [row[name] for row in rows]
        return None if None in values else statistics.median(values)

    names = ("import_ms", "load_ms", "idle_mb", "loaded_mb", "peak_mb")
    return Process(processes=len(rows), **{name: of(name) for name in names})


def main() -> None:
    """The measured process: loads and transcribes as a device does, and prints what it took as one line of JSON."""
    task = json.loads(sys.argv[1])
    began = time.perf_counter()
    from edge.runtime import Recognizer, read_blocks
    from edge.runtime.engines.base import ENGINES

    engine = EngineConfig(**task["engine"])
    importlib.import_module(ENGINES[engine.engine].partition(":")[0])  # which Recognizer.load would do
    if engine.engine == "openvino":
        from edge.runtime.engines.openvino.core import devices

        devices()  # the library itself, which that module loads when it is needed
    imported, idle = time.perf_counter(), resident_mb()
    recognizer = Recognizer.load(Path(task["bundle"]), engine)
    loaded_at, loaded = time.perf_counter(), resident_mb()
    stream = recognizer.stream(DecodeOptions(**task["decode"], endpoint=None))
    if task["audio"]:
        for second, (samples, rate) in enumerate(read_blocks(task["audio"])):
            if second >= task["longest_s"]:
                break
            stream.accept(samples, rate)
    else:
        from quant.measure.bench.audio import noise

        rate = recognizer.manifest.features.sample_rate
        stream.accept(noise(10.0, rate), rate)
    stream.finish()
    row = {
        "import_ms": (imported - began) * 1000,
        "load_ms": (loaded_at - imported) * 1000,
        "idle_mb": idle,
        "loaded_mb": loaded,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
