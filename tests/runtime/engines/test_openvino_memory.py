"""Memory of the OpenVINO engine: utterances have any length, and each must not leave its kernels behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openvino_helpers import need_openvino
from places import ROOT

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from edge.runtime import Bundle
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.base import initial_state, load_backend

bundle = Bundle.open(sys.argv[1])
engine = load_backend(bundle, EngineConfig("openvino", threads=1))
random, memory = np.random.default_rng(0), []
for frames in random.permutation(np.arange(60, 540, 4)):
    engine.step(random.normal(10, 3, (frames, 80)).astype(np.float32), initial_state(bundle.manifest.caches, -1))
    memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
print(memory[-1] - memory[79])
"""


def test_new_lengths_do_not_add_up(tmp_path: Path) -> None:
    """120 passes over utterances of lengths never met before, the growth of the last 40. OpenVINO's default keeps all
    their kernels, 13 MB per length: 520 MB. With the bound on kernels what is left is 1 to 2 MB per length."""
    need_openvino()
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc/self/statm on this system: resident memory cannot be read")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "models/reference-int8"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250
