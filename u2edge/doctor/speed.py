"""How fast this machine runs the bundle, chunk size by chunk size, and what that means.

Packages that may be broken here are imported in functions: the doctor must start without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.system.assets import sample_files
from edge.system.child import ask, say, serve
from u2edge.doctor.section import Problem, Section, plural

CHUNKS_MS = (160, 320, 640, 1280)
DEFAULT_MS = 640.0
TIGHT = 0.7  # RTF above which a busy moment makes the text late
LEFT_CHUNKS = 16  # of history, as in u2edge demo
_LEAST = 3  # chunks measured at least, however slow
_LOAD_S = 120.0  # seconds that loading may take
_UTTERANCE_S = 5.0  # the utterance whose end is timed


def examine(
    directory: Path, ways: list[tuple[str, str]], seconds: float, scheme: str, load: float | None, cores: int
) -> Section:
    """Measure ``directory`` with every (engine, device) of ``ways``, each in a process of its own.

    Args:
        directory: a bundle that was checked.
        ways: engines and devices, the default first.
        seconds: of measuring per chunk size.
        scheme: precision of the bundle, for the advice.
        load: load average of the last minute before measuring; None where unknown.
        cores: of the machine.
    """
    runs, lines, problems = [], [], []
    for engine, device in ways:
        run = measure(directory, engine, device, seconds)
        runs.append(run)
        lines += table(run)
        if run["failed"]:
            # Without any engine that works there is nothing to transcribe with; see the verdict.
            text = f"{engine} on {device} could not run the bundle: {run['failed']}"
            problems.append(Problem("warning", text, "see the engines above"))
        elif device == "GPU" and run["chunks"] and not run["runs_on"].startswith("GPU"):
            why = "; ".join(run["messages"]) or "no reason given"
            text = f"the GPU could not run the bundle, the processor did it: {why}"
            problems.append(Problem("warning", text, "use --engine onnxruntime; tell us: u2edge doctor --report"))
    if "dynamic" in scheme and any(engine == "openvino" for engine, _ in ways):
        text = "OpenVINO runs dynamic bundles in float, which is slower"
        problems.append(Problem("note", text, "use --engine onnxruntime, or a static bundle (u2edge quantize)"))
    text, found = verdict(runs, scheme)
    if load is not None and load > cores and any(run["chunks"] for run in runs):
        busy = (
            f"other programs kept the machine busy (load {load:.1f} on {plural(cores, 'core')}): an idle one is faster"
        )
        found.append(Problem("note", busy, "close them and run u2edge doctor again"))
    return Section("speed", {"runs": runs, "verdict": text, "load_1min": load}, [*lines, text], [*problems, *found])


def ways_to_run(openvino_devices: list[str]) -> list[tuple[str, str]]:
    """(engine, device) pairs that this installation could use, the default first."""
    from edge.runtime.engines.base import ENGINES

    ways = [("onnxruntime", "CPU")]
    if "openvino" in ENGINES:
        kinds = dict.fromkeys(device.partition(".")[0] for device in openvino_devices)  # GPU.0 and GPU.1: one kind
        ways += [("openvino", kind) for kind in kinds if kind in ("CPU", "GPU")]
    return ways


def measure(directory: Path, engine: str, device: str, seconds: float) -> dict[str, Any]:
    """What a child measured: threads, load time, per chunk size RTF and milliseconds, the end of an utterance.

    ``failed`` says why something is missing, "" when nothing is.
    """
    task = {"bundle": str(directory), "engine": engine, "device": device, "seconds": seconds}
    # Slow machines take longer: three chunks of 1280 ms and a warm-up at RTF 10.
    limit = _LOAD_S + len(CHUNKS_MS) * (seconds + 15.0)
    answer = ask("u2edge.doctor.speed", task, limit)
    chunks = [answer.data[key] for key in sorted(answer.data) if key.startswith("chunk_")]
    chunks.sort(key=lambda row: row["chunk_ms"])
    head = {
        name: answer.data.get(name) for name in ("threads", "load_ms", "runs_on", "audio", "finish_ms", "memory_mb")
    }
    return {"engine": engine, "device": device, **head, "chunks": chunks, "failed": answer.failed}


def table(run: dict[str, Any]) -> list[str]:
    """Lines for people."""
    if not run["chunks"]:
        return [f"{run['engine']} on {run['device']}: not measured"]
    lines = [
        f"{run['engine']} on {run['runs_on']}, {plural(run['threads'], 'thread')}, {run['audio']}, "
        f"{LEFT_CHUNKS} chunks of history"
    ]
    lines.append(f"{'chunk':>9}  {'RTF':>6}  {'p50':>9}  {'p95':>9}  {'idle':>5}")
    for row in run["chunks"]:
        size, idle = f"{row['chunk_ms']:g} ms", f"{idle_percent(row['rtf'])} %"
        lines.append(f"{size:>9}  {row['rtf']:>6.3f}  {row['p50_ms']:>6.1f} ms  {row['p95_ms']:>6.1f} ms  {idle:>5}")
    if run["finish_ms"] is not None:
        lines.append(f"the end of a {_UTTERANCE_S:g} s utterance takes {run['finish_ms']:.0f} ms (rescoring)")
    return lines


def idle_percent(rtf: float) -> int:
    """Per cent of the time that the recognizer waits for audio."""
    return max(0, int(100 * (1 - rtf)))


def verdict(runs: list[dict[str, Any]], scheme: str) -> tuple[str, list[Problem]]:
    """One sentence, and the problem when the machine is too slow; judged by the engine used by default, or by the
    only ones that work."""
    judged = next((run for run in runs if run["chunks"]), None)
    if judged is None:
        text = "no engine can run this bundle on this machine"
        return text, [Problem("error", text, "pip install --force-reinstall onnxruntime; then u2edge doctor again")]
    rows = judged["chunks"]
    usual = min(rows, key=lambda row: abs(row["chunk_ms"] - DEFAULT_MS))
    best = min(rows, key=lambda row: row["rtf"])
    text = (
        f"your machine runs this bundle at RTF {usual['rtf']:.2g}: chunks of {usual['chunk_ms']:g} ms leave "
        f"{idle_percent(usual['rtf'])} % idle"
    )
    faster = min((run for run in runs if run["chunks"]), key=lambda run: min(row["rtf"] for row in run["chunks"]))
    problems = []
    advice = []
    if best["rtf"] < 0.9 * usual["rtf"] and best["rtf"] <= TIGHT:
        advice.append(f"use --chunk-ms {best['chunk_ms']:g} (RTF {best['rtf']:.2f})")
    if faster is not judged:
        rtf = min(row["rtf"] for row in faster["chunks"])
        if rtf < 0.9 * best["rtf"]:
            how = f"--engine {faster['engine']} --device {faster['device']}"
            advice.append(f"use {how} (RTF {rtf:.2f})")
            if usual["rtf"] <= TIGHT:
                problems.append(Problem("note", f"{faster['engine']} on {faster['device']} is faster here", advice[-1]))
    if scheme == "fp32":
        advice.append("use an int8 bundle (u2edge quantize)")
    advice.append("close other programs, give the process more cores, or use a model with fewer or smaller experts")
    if best["rtf"] >= 1 and min(row["rtf"] for row in faster["chunks"]) >= 1:
        slow = f"the machine is too slow for this bundle: RTF {best['rtf']:.2f} with the best chunk size, above 1"
        problems.append(Problem("error", slow, "; ".join(advice)))
    elif usual["rtf"] > TIGHT:
        slow = f"RTF {usual['rtf']:.2f} with chunks of {usual['chunk_ms']:g} ms is above {TIGHT:g}: text will come late"
        problems.append(Problem("warning", slow, "; ".join(advice)))
    return text, problems


def _probe(task: dict[str, Any]) -> None:
    """The child: load, then measure one chunk size after another; every result arrives as soon as it is known."""
    from edge.runtime import EngineConfig, Recognizer

    messages: list[str] = []  # warnings of the engine, such as falling back from the GPU
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    began = time.perf_counter()
    recognizer = Recognizer.load(task["bundle"], EngineConfig(task["engine"], task["device"]), verify=False)
    say(
        threads=recognizer.backend.threads,
        runs_on=recognizer.backend.device,
        load_ms=round(1000 * (time.perf_counter() - began), 1),
    )
    audio, what = _audio(recognizer.manifest.features.sample_rate)
    say(audio=what)
    stream = recognizer.manifest.stream
    frame_ms = stream.subsampling * recognizer.manifest.features.frame_shift_ms
    for chunk in _chunks(stream.streaming, stream.static_chunk, frame_ms):
        row = _measure_chunk(recognizer, chunk, frame_ms, audio, float(task["seconds"]))
        say(**{f"chunk_{chunk:05d}": row})
        say(runs_on=recognizer.backend.device, messages=messages)  # a GPU may give up late
    say(finish_ms=_finish(recognizer, audio))


def _chunks(streaming: bool, static: int, frame_ms: float) -> list[int]:
    """Encoder frames of the sizes to measure; 0 is full context."""
    if not streaming:
        return [0]
    return [static] if static else sorted({max(1, round(ms / frame_ms)) for ms in CHUNKS_MS})


def _measure_chunk(recognizer: Any, chunk: int, frame_ms: float, audio: Any, seconds: float) -> dict[str, float]:
    """RTF and chunk times of a stream that is fed for ``seconds``, and at least three chunks."""
    import numpy as np

    from edge.runtime import DecodeOptions

    rate = recognizer.manifest.features.sample_rate
    if chunk == 0:  # a model that cannot stream: the recording is the chunk
        options = DecodeOptions(full_context=True, rescoring=False)
        began = time.perf_counter()
        stream = recognizer.stream(options)
        stream.accept(audio[: int(_UTTERANCE_S * rate)], rate)
        stream.finish()
        spent = time.perf_counter() - began
        ms = round(1000 * spent, 3)
        return {
            "chunk_ms": 1000 * _UTTERANCE_S,
            "rtf": round(spent / _UTTERANCE_S, 4),
            "p50_ms": ms,
            "p95_ms": ms,
            "chunks": 1,
        }
    options = DecodeOptions(chunk=chunk, left_chunks=LEFT_CHUNKS, rescoring=False, endpoint=None)
    stream = recognizer.stream(options)
    blocks = _blocks(audio, round(chunk * frame_ms * rate / 1000))
    while stream.stats.chunks < 2:  # the first calls allocate and compile
        stream.accept(next(blocks), rate)
    warm, spent, heard = stream.stats.chunks, stream.stats.compute_s, stream.stats.audio_s
    until = time.perf_counter() + seconds
    while stream.stats.chunks - warm < _LEAST or time.perf_counter() < until:
        stream.accept(next(blocks), rate)
    stats = stream.stats
    times = np.array(list(stats.chunk_ms)[warm:] or list(stats.chunk_ms))
    return {
        "chunk_ms": chunk * frame_ms,
        "rtf": round((stats.compute_s - spent) / (stats.audio_s - heard), 4),
        "p50_ms": round(float(np.percentile(times, 50)), 3),
        "p95_ms": round(float(np.percentile(times, 95)), 3),
        "chunks": stats.chunks - warm,
    }


def _finish(recognizer: Any, audio: Any) -> float:
    """Milliseconds that ``finish()`` takes after an utterance, with what the bundle recommends."""
    from edge.runtime import DecodeOptions

    rate = recognizer.manifest.features.sample_rate
    full = not recognizer.manifest.stream.streaming
    stream = recognizer.stream(DecodeOptions(full_context=full, endpoint=None))
    stream.accept(audio[: int(_UTTERANCE_S * rate)], rate)
    began = time.perf_counter()
    stream.finish()
    return round(1000 * (time.perf_counter() - began), 1)


def _blocks(audio: Any, size: int) -> Iterator[Any]:
    """Blocks of ``size`` samples, from the start again after the end."""
    import numpy as np

    at = 0
    while True:
        block = audio[at : at + size]
        at += size
        if len(block) < size:
            at = size - len(block)
            block = np.concatenate([block, np.resize(audio, at)]) if at <= len(audio) else np.resize(audio, size)
        yield block


def _audio(rate: int) -> tuple[Any, str]:
    """Speech of the repository where it is there, else noise that rises and falls as speech does; at ``rate``."""
    import numpy as np

    from edge.runtime import EdgeError
    from edge.runtime.audio_files import read_resampled

    parts = []
    for path in sample_files():
        try:
            parts.append(read_resampled(path, rate)[0])
        except EdgeError:
            continue
    if parts:
        audio = np.concatenate(parts)
        return audio, f"{len(audio) / rate:.0f} s of speech, repeated"
    random = np.random.default_rng(0)
    loudness = np.repeat(random.uniform(0, 0.1, 200), rate // 10)
    return (random.standard_normal(len(loudness)) * loudness).clip(-1, 1).astype(np.float32), "noise"


if __name__ == "__main__":
    serve(_probe)
