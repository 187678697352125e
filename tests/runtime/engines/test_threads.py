"""The number of threads: the fewest that pay, measured once per bundle and machine; asked for, it is obeyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openvino_helpers import REFERENCE, SAMPLES, bundle_dir

from edge.runtime import Bundle, Recognizer
from edge.runtime.engines import choice, race, threads
from edge.runtime.engines.base import ENGINES
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.onnxruntime import OnnxBackend
from edge.runtime.state import EncoderState, Step


class Clock:
    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now


class Timed(OnnxBackend):
    """A real engine; each number of threads takes the time that a test gives it, whatever the machine does."""

    seconds: dict[int, float]
    loads: list[int]

    @classmethod
    def load(cls, bundle: Bundle, config: EngineConfig) -> Any:
        assert config.threads is not None, "somebody decided"
        cls.loads.append(config.threads)
        return cls(bundle, config.threads)

    def step(self, features: Any, state: EncoderState) -> Step:
        Clock.now += self.seconds[self.threads]
        return super().step(features, state)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(ENGINES, "onnxruntime", f"{__name__}:Timed.load")
    monkeypatch.setattr(race, "time", Clock)
    monkeypatch.setattr(threads, "default_threads", lambda: 4)
    Timed.loads = []


@pytest.mark.parametrize(
    ("seconds", "wanted", "loads"),
    [
        ({1: 0.010, 2: 0.016, 4: 0.001}, 1, [1, 2]),  # slower: nothing above is tried
        ({1: 0.010, 2: 0.0095, 4: 0.001}, 1, [1, 2]),  # hardly faster
        ({1: 0.010, 2: 0.006, 4: 0.0058}, 2, [1, 2, 4]),
        ({1: 0.010, 2: 0.006, 4: 0.004}, 4, [1, 2, 4]),
    ],
)
def test_the_fewest_that_pay(seconds: dict[int, float], wanted: int, loads: list[int]) -> None:
    Timed.seconds = seconds
    first = Recognizer.load(REFERENCE)
    assert first.backend.threads == wanted and Timed.loads == loads
    assert first.choice is not None and "2 threads" in first.choice.reason
    again = Recognizer.load(REFERENCE)
    assert again.backend.threads == wanted and Timed.loads == [*loads, wanted], "remembered: loaded once"
    assert again.choice is not None and again.choice.remembered


def test_what_is_asked_for_is_obeyed() -> None:
    Timed.seconds = {1: 0.010, 2: 0.016, 3: 1.0}
    for _ in range(2):  # before and after another number was found to pay
        before = Clock.now
        loaded = Recognizer.load(REFERENCE, EngineConfig(threads=3))
        assert loaded.backend.threads == 3 and loaded.choice is None and Clock.now == before, "nothing is measured"
        assert Recognizer.load(REFERENCE).backend.threads == 1


@pytest.mark.parametrize("content", ["", "null", "{}", "1 thread", '{"threads": 2}', '{"threads": 3, "chunk_ms": {}}'])
def test_a_damaged_memory_is_measured_again(tmp_path: Path, content: str) -> None:
    Timed.seconds = {1: 0.010, 2: 0.016}
    Recognizer.load(REFERENCE)
    (file,) = (tmp_path / "u2edge" / "engine").iterdir()
    right = file.read_text()
    file.write_text(content)
    again = Recognizer.load(REFERENCE)
    assert again.backend.threads == 1 and again.choice is not None and not again.choice.remembered
    assert file.read_text() == right, "and written anew"


def test_another_machine_and_another_bundle_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads_of(bundle: Path, one: float, two: float) -> int:
        Timed.seconds = {1: one, 2: two, 4: two}
        return Recognizer.load(bundle).backend.threads

    assert threads_of(REFERENCE, 0.010, 0.016) == 1
    assert threads_of(REFERENCE, 0.010, 0.006) == 1, "remembered"
    assert threads_of(bundle_dir("int8"), 0.010, 0.006) == 2
    monkeypatch.setattr(choice, "cpu_name", lambda: "another")
    assert threads_of(REFERENCE, 0.010, 0.006) == 2


def test_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Timed.seconds = {1: 0.010, 2: 0.016}
    for _ in range(2):
        loaded = Recognizer.load(REFERENCE)
        assert loaded.backend.threads == 1 and loaded.choice is not None and not loaded.choice.remembered


def test_a_large_bundle_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LARGE", 1_000_000)
    assert Recognizer.load(REFERENCE).backend.threads == 4
    assert Timed.loads == [4]


def test_one_core_has_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "default_threads", lambda: 1)
    loaded = Recognizer.load(REFERENCE)
    assert loaded.choice is None and Timed.loads == [1]


def test_text_does_not_depend_on_threads() -> None:
    Timed.seconds = dict.fromkeys((1, 2), 0.0)
    one, two = (
        [
            r.text
            for sample in SAMPLES
            for r in Recognizer.load(REFERENCE, EngineConfig(threads=count)).transcribe(sample)
        ]
        for count in (1, 2)
    )
    assert one == two and len(one) >= len(SAMPLES)
