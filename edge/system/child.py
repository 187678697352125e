"""Examinations in a process of their own: a driver that crashes, hangs or eats the memory ends only that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[2])  # so that the child finds this package, wherever it is started


@dataclass(frozen=True)
class Answer:
    """What a child printed, merged; ``failed`` says in one line why there is no more, "" when it ended well."""

    data: dict[str, Any] = field(default_factory=dict)
    failed: str = ""


def ask(module: str, task: dict[str, Any], seconds: float) -> Answer:
    """Run ``python -m module`` with ``task`` as JSON on its standard input, for at most ``seconds``.

    The child prints JSON objects, one per line; what it printed before it failed is kept.
    """
    command = [sys.executable, "-m", module]
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            command,
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as late:
        return Answer(_read(late.stdout or b""), f"no answer within {seconds:g} s")
    except OSError as error:
        return Answer(failed=f"cannot start {sys.executable}: {error.strerror}")
    return Answer(_read(done.stdout), _why(done.returncode, done.stderr))


def serve(answer: Callable[[dict[str, Any]], None]) -> None:
    """The child's side: read the task, answer with :func:`say`, and end at once.

    At once: without waiting for threads of drivers, which are what hangs.
    """
    code = 0
    try:
        answer(json.loads(sys.stdin.read() or "{}"))
    except Exception as error:
        text = str(error).strip().splitlines()
        print(f"{type(error).__name__}: {text[0]}" if text else type(error).__name__, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(**data: Any) -> None:
    """One answer of a child; it arrives even when the child dies later."""
    print(json.dumps(data), flush=True)


def _read(output: bytes) -> dict[str, Any]:
    """All objects of ``output``; other lines are chatter of libraries."""
    found: dict[str, Any] = {}
    for line in output.decode("utf-8", "replace").splitlines():
        if line.startswith("{"):
            try:
                found.update(json.loads(line))
            except ValueError:  # cut off when the child was killed
                continue
    return found


def _why(code: int, stderr: bytes) -> str:
    if code == 0:
        return ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hints = {"SIGKILL": ", likely out of memory", "SIGILL": ", an instruction this processor does not have"}
        return f"the process was ended by {name}{hints.get(name, '')}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit code {code}"
