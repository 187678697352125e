"""engine="auto": the faster engine is taken, once measured it is remembered, and nothing on disk is trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openvino_helpers import REFERENCE, SAMPLES

from edge.runtime import BackendError, Bundle, Recognizer
from edge.runtime.engines import choice, race
from edge.runtime.engines.autoselect import choose
from edge.runtime.engines.base import ENGINES
from edge.runtime.engines.choice import choice_file
from edge.runtime.engines.config import EngineConfig
from edge.runtime.engines.onnxruntime import OnnxBackend
from edge.runtime.state import EncoderState, Step
from edge.system.user_cache import user_cache


class Clock:
    """Time that only engines spend, so that a busy machine changes nothing."""

    now = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now


class Slow(OnnxBackend):
    """A real engine that takes its time."""

    delay = 0.06
    loads = 0

    @classmethod
    def load(cls, bundle: Bundle, config: EngineConfig) -> Any:
        cls.loads += 1
        return cls(bundle, config.threads or 1)

    def step(self, features: Any, state: EncoderState) -> Step:
        Clock.now += self.delay
        return super().step(features, state)


class Quick(Slow):
    delay = 0.01
    loads = 0


class Broken(Slow):
    @classmethod
    def load(cls, *args: Any, **more: Any) -> Any:
        raise BackendError("no such driver")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Slow.loads = Quick.loads = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """The clock of the measurement."""
    monkeypatch.setattr(race, "time", Clock)
    Clock.now = 0.0
    return Clock


def engines(monkeypatch: pytest.MonkeyPatch, onnxruntime: str, openvino: str) -> None:
    monkeypatch.setitem(ENGINES, "onnxruntime", f"{__name__}:{onnxruntime}.load")
    monkeypatch.setitem(ENGINES, "openvino", f"{__name__}:{openvino}.load")


def files(folder: Path) -> list[Path]:
    return sorted((folder / "u2edge" / "engine").iterdir())


@pytest.mark.parametrize(
    ("onnxruntime", "openvino", "wanted"), [("Slow", "Quick", "openvino"), ("Quick", "Slow", "onnxruntime")]
)
@pytest.mark.usefixtures("clock")
def test_the_faster_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnxruntime: str, openvino: str, wanted: str
) -> None:
    engines(monkeypatch, onnxruntime, openvino)
    bundle = Bundle.open(REFERENCE)
    backend, choice = choose(bundle, EngineConfig("auto", threads=1), seconds=0.3)
    assert isinstance(backend, Quick) and choice.engine == wanted and not choice.remembered
    times = choice.chunk_ms
    slow, quick = sorted(times.values(), reverse=True)
    assert (slow, quick) == pytest.approx((60, 10)) and all(f"{ms:.1f} ms" in choice.reason for ms in times.values())
    assert [Slow.loads, Quick.loads] == [1, 1]
    _, again = choose(bundle, EngineConfig("auto", threads=1), seconds=0.3)
    assert again.remembered and again.chunk_ms == times and [Slow.loads, Quick.loads] == [1, 2], "only the chosen one"
    assert len(files(tmp_path)) == 1
    _, other = choose(bundle, EngineConfig("auto", threads=2), seconds=0.1)
    assert not other.remembered and len(files(tmp_path)) == 2, "other threads, another measurement"


@pytest.mark.usefixtures("clock")
def test_an_equal_one_does_not_replace_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, "Slow", "Slow")
    assert choose(Bundle.open(REFERENCE), EngineConfig("auto", threads=1), seconds=0.2)[1].engine == "onnxruntime"


def test_two_seconds_at_most(monkeypatch: pytest.MonkeyPatch, clock: type[Clock]) -> None:
    engines(monkeypatch, "Quick", "Slow")
    choose(Bundle.open(REFERENCE), EngineConfig("auto", threads=1))
    turn = Quick.delay + Slow.delay
    filling = 4 * turn  # the left context
    assert filling + 2.0 <= clock.now < filling + 2.0 + 2 * turn


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "null",
        '{"engine": "openvino"}',
        '{"engine": "tensorrt", "device": "cpu", "chunk_ms": {}}',
        '{"engine": "openvino", "device": "gpu", "chunk_ms": {}}',
        '{"engine": "openvino", "device": "cpu", "chunk_ms": 3}',
        '{"engine": "openvino", "device": "cpu", "threads": 0, "chunk_ms": {}}',
        '{"engine": "openvino", "device": "cpu", "threads": "1", "chunk_ms": {}}',
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_damaged_memory_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    engines(monkeypatch, "Quick", "Slow")
    bundle = Bundle.open(REFERENCE)
    choose(bundle, EngineConfig("auto", threads=1), seconds=0.05)
    (file,) = files(tmp_path)
    file.write_text(content)
    _, choice = choose(bundle, EngineConfig("auto", threads=1), seconds=0.05)
    assert not choice.remembered and choice.engine == "onnxruntime"
    assert json.loads(file.read_text())["engine"] == "onnxruntime", "and written anew"


@pytest.mark.usefixtures("clock")
def test_an_engine_that_has_gone_since(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, "Slow", "Quick")
    bundle = Bundle.open(REFERENCE)
    assert choose(bundle, EngineConfig("auto", threads=1), seconds=0.05)[1].engine == "openvino"
    engines(monkeypatch, "Slow", "Broken")
    backend, choice = choose(bundle, EngineConfig("auto", threads=1), seconds=0.05)
    assert type(backend) is Slow and choice.reason == "the only one that runs here"


def test_no_engine_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, "Broken", "Broken")
    with pytest.raises(BackendError, match="no such driver"):
        choose(Bundle.open(REFERENCE), EngineConfig("auto"))


@pytest.mark.usefixtures("clock")
def test_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    engines(monkeypatch, "Quick", "Slow")
    for _ in range(2):
        assert not choose(Bundle.open(REFERENCE), EngineConfig("auto", threads=1), seconds=0.05)[1].remembered
    assert user_cache("engine") is None


def test_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert user_cache("x/y") == tmp_path / "u2edge" / "x" / "y"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache("x") == tmp_path / "home" / ".cache" / "u2edge" / "x"


def test_real_engines() -> None:
    recognizer = Recognizer.load(REFERENCE, EngineConfig("auto", threads=1))
    assert recognizer.choice is not None and recognizer.choice.engine == recognizer.backend.name
    named = Recognizer.load(REFERENCE, EngineConfig(recognizer.backend.name, threads=1))
    assert named.choice is None
    assert [r.text for r in recognizer.transcribe(SAMPLES[0])] == [r.text for r in named.transcribe(SAMPLES[0])]


def test_key_names_machine_and_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(REFERENCE)
    request = EngineConfig("auto", "CPU", 1)
    first = choice_file(bundle, request)
    assert first == choice_file(bundle, EngineConfig("auto", "cpu", 1))
    others = [choice_file(bundle, EngineConfig("auto", *what)) for what in (("CPU", None), ("AUTO", 1))]
    others.append(choice_file(bundle, EngineConfig("openvino", "CPU", 1)))
    monkeypatch.setattr(choice, "cpu_name", lambda: "another")
    others.append(choice_file(bundle, request))
    monkeypatch.undo()
    assert len({str(file) for file in (first, *others)}) == 5
