"""The same sums and the same text on every kind of x86 CPU that this machine can be made to look like."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cpu_kinds import KINDS, Kind, environment, why_not
from places import ROOT

SAMPLES = sorted((ROOT / "models" / "reference" / "samples").glob("*.flac"))
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.partition(" (")[0])


def lines(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need(kind: Kind) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)


@EVERY
def test_sums_are_exact(kind: Kind) -> None:
    need(kind)
    lines(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime/engines/test_exact_sums.py"], environment(kind)
    )


@EVERY
def test_an_engine_that_is_not_helped_saturates_without_vnni(kind: Kind) -> None:
    """The mask works: int8 products of ONNX Runtime itself lose their upper bits where the kind has no VNNI."""
    need(kind)
    program = "from edge.runtime.engines.onnxruntime_session import saturates; print(saturates())"
    assert lines(["-c", program], environment(kind)).strip() == str("without VNNI" in kind.name)


@EVERY
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_text_is_the_same(kind: Kind, engine: str, tmp_path: Path) -> None:
    """Final texts of the samples by the shipped int8 bundle."""
    pytest.importorskip(engine)
    need(kind)
    there = texts(engine, environment(kind) | {"XDG_CACHE_HOME": str(tmp_path)})
    assert there == texts_here(engine) and len(there) >= len(SAMPLES)


@functools.cache
def texts_here(engine: str) -> list[str]:
    with tempfile.TemporaryDirectory() as cache:
        return texts(engine, os.environ | {"XDG_CACHE_HOME": cache})


def texts(engine: str, env: dict[str, str]) -> list[str]:
    command = ["-m", "u2edge", "transcribe", *map(str, SAMPLES), "--bundle", "models/reference-int8", "--json"]
    output = lines([*command, "--no-partials", "--engine", engine, "--threads", "1"], env)
    rows = [json.loads(line) for line in output.splitlines()]
    return [row["text"] for row in rows if row["type"] == "final"]
