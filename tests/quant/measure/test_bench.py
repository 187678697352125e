"""The benchmark: what it counts, its ratios against closed forms, memory of processes of known size. No timings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import ROOT

from edge.runtime import AudioError, DecodeOptions, OptionsError
from edge.runtime.audio_files import read_resampled
from edge.runtime.engines.config import EngineConfig
from quant.measure.bench.audio import noise, recordings
from quant.measure.bench.machine import machine, versions
from quant.measure.bench.measure import BenchError, BenchOptions, bench
from quant.measure.bench.process import ProcessError, measure_processes
from quant.measure.bench.stats import Ratio, ratio, spread
from quant.measure.bench.tables import sentence
from quant.measure.labels import bundle_names as names


@pytest.fixture(scope="module")
def other_bundle(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge.export.convert import convert

    return convert(make_experiment(seed=5), tmp_path_factory.mktemp("bundles") / "other").directory


def test_two_bundles_side_by_side(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    """Chunks of 320 ms are windows of 35 frames every 32: 9 whole ones in 3.2 s (318 frames), 4 in 1.5 s (148)."""
    files = [tmp_path / "long.wav", tmp_path / "short.flac"]
    soundfile.write(files[0], noise(3.2, 16000), 16000)
    soundfile.write(files[1], noise(1.5, 44100, seed=1), 44100)
    options = BenchOptions(chunk_ms=320, engine=EngineConfig(threads=1), rounds=3, processes=0)
    said: list[str] = []
    result = bench(tiny_bundle, other_bundle, options, files, said.append)
    new, old = result.bundle, result.baseline
    assert old is not None and new.name != old.name and new.sha256 != old.sha256
    assert (new.path, old.path) == (str(tiny_bundle), str(other_bundle))
    assert new.chunks == old.chunks == new.chunk.count == old.engine.count == 3 * (9 + 4)
    assert new.finish.count == old.rescoring.count == 3 * 2
    assert new.audio_s == old.audio_s == pytest.approx(3 * 4.7, abs=0.01)
    assert (
        list(result.audio) == [str(f) for f in files]
        and not result.synthetic
        and (result.rounds, result.loads) == (3, 2)
    )
    for one in (new, old):
        assert 0 < one.engine.p50 <= one.chunk.p50 <= one.chunk.p95 <= one.chunk.p99
        assert 0 < one.rescoring.mean < one.finish.mean and one.rtf > 0 and one.threads == 1
        assert one.first_partial_audio_ms is not None and 320 <= one.first_partial_audio_ms <= 3200
        assert one.process is None and one.experts == 4 and one.chunk_ms == 320
    for directory, found in ((tiny_bundle, new.bytes), (other_bundle, old.bytes)):
        assert found == sum(p.stat().st_size for p in directory.iterdir())
    assert list(result.ratios) == ["chunk", "engine", "finish", "rescoring", "rtf", "bytes"]
    assert result.ratios["chunk"].value == pytest.approx(new.chunk.p50 / old.chunk.p50)
    assert result.ratios["rtf"].value == pytest.approx(new.rtf / old.rtf)
    assert result.ratios["bytes"] == Ratio(new.bytes / old.bytes)
    data = asdict(result)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert said[-1].startswith("round 3, 39 chunks, ")


def test_noise_until_the_time_is_over(tiny_bundle: Path) -> None:
    """Rounds come in pairs: each bundle begins each recording equally often."""
    result = bench(
        tiny_bundle, None, BenchOptions(seconds=0.0, processes=0, rescoring=False, engine=EngineConfig(threads=1))
    )
    assert result.synthetic and list(result.audio) == ["noise"] and result.ratios == {} and result.baseline is None
    assert result.rounds % 2 == 0 and result.bundle.chunks == 15 * result.rounds
    assert result.bundle.rescoring.p99 == 0.0 and not result.bundle.second_pass


def test_what_cannot_be_measured(tiny_bundle: Path, make_experiment: Callable[..., Path], tmp_path: Path) -> None:
    from edge.export.convert import convert

    soundfile.write(tmp_path / "a.wav", noise(0.3, 16000), 16000)
    quick = BenchOptions(engine=EngineConfig(threads=1), rounds=1, processes=0)
    with pytest.raises(BenchError, match=r"longer than one chunk \(640 ms and the next frames\), found 0\.30 s"):
        bench(tiny_bundle, None, quick, [tmp_path / "a.wav"])
    with pytest.raises(AudioError, match="no such audio file"):
        bench(tiny_bundle, None, quick, [tmp_path / "none.wav"])
    with pytest.raises(OptionsError, match="multiple of 40 ms"):
        bench(tiny_bundle, None, BenchOptions(chunk_ms=50))
    six = convert(make_experiment(encoder_conf={"input_layer": "conv2d6"}), tmp_path / "six").directory
    with pytest.raises(BenchError, match="expected two bundles with the same chunk"):
        bench(tiny_bundle, six, quick)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="expected recordings"):
        recordings([tmp_path / "empty"])
    assert recordings([tmp_path]) == [tmp_path / "a.wav"]


def test_ratio_of_pairs() -> None:
    rng = np.random.default_rng(0)
    old = rng.lognormal(2, 0.5, 400)
    exact = ratio((0.43 * old).tolist(), old.tolist())
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.43, 0.43, 0.43)), "pairs share their noise"
    assert ratio([2.0], [4.0]) == Ratio(0.5, 0.5, 0.5)
    noisy = ratio((0.43 * old * rng.lognormal(0, 0.2, 400)).tolist(), old.tolist())
    assert noisy.low is not None and noisy.high is not None
    assert noisy.low < 0.43 < noisy.high and noisy.high - noisy.low < 0.1
    # A load that shifts all its pairs by 10 % counts as one observation, however many pairs it has.
    shifted = np.repeat([0.9, 1.1, 1.0, 1.05, 0.95], 80)
    loads = np.repeat(np.arange(5), 80).tolist()
    apart, blind = (ratio(shifted.tolist(), np.ones(400).tolist(), np.sum, groups) for groups in (loads, None))
    assert apart.low is not None and apart.high is not None and blind.low is not None and blind.high is not None
    # Five values with a standard deviation of 0.0707: their mean is uncertain by 0.0316.
    assert (apart.high - apart.low) / 2 == pytest.approx(1.96 * 0.0316, rel=0.15)
    assert blind.high - blind.low < (apart.high - apart.low) / 2
    total = ratio([1.0, 2.0], [2.0, 2.0], np.sum)
    assert total.value == 0.75


def test_neighbours_that_share_a_disturbance_widen_the_interval() -> None:
    """40 stretches of 10 pairs with one disturbance each: as good as 40 values, not as 400."""
    rng = np.random.default_rng(3)
    stretches = rng.lognormal(0, 0.3, 40)
    old = np.ones(400)
    together = ratio(np.repeat(stretches, 10).tolist(), old.tolist())
    shuffled = ratio(rng.permutation(np.repeat(stretches, 10)).tolist(), old.tolist())
    assert together.low is not None and together.high is not None
    assert shuffled.low is not None and shuffled.high is not None
    assert together.high - together.low > 1.5 * (shuffled.high - shuffled.low)


def test_spread() -> None:
    found = spread(list(range(101)))
    assert (found.count, found.mean, found.p50, found.p95, found.p99) == (101, 50, 50, 95, 99)


def test_memory_is_that_of_the_process_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    """The parent's size must not count, though a child inherits its peak (ru_maxrss); a longer recording must."""
    ballast = np.ones(64 << 20)  # 512 MB, resident
    (found,) = measure_processes([(tiny_bundle, EngineConfig(threads=1))], DecodeOptions(), None, 60.0, processes=1)
    assert ballast[-1] == 1
    if found.idle_mb is None or found.loaded_mb is None or found.peak_mb is None or found.added_mb is None:
        pytest.skip("this system does not tell the memory of a process")
    assert 10 < found.idle_mb < found.loaded_mb <= found.peak_mb < 400
    assert found.added_mb == found.peak_mb - found.idle_mb and found.load_ms > 0 and found.processes == 1
    with pytest.raises(ProcessError, match="nothing: expected a process that transcribes"):
        measure_processes([(tmp_path / "nothing", EngineConfig(threads=1))], DecodeOptions(), None, 60.0, processes=1)


def test_recordings_are_cut_and_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((3 * 8000, 2)), 8000)
    assert len(read_resampled(tmp_path / "a.wav", 16000, 60.0)[0]) == 3 * 16000
    assert len(read_resampled(tmp_path / "a.wav", 16000, 2.0)[0]) == 2 * 16000


def test_words_for_people() -> None:
    assert sentence(Ratio(0.431, 0.42, 0.44), "int8", "fp32") == "int8 takes 0.43 of fp32 (0.42 to 0.44, 95 %)"
    assert "cannot be told apart" in sentence(Ratio(1.01, 0.98, 1.04), "int8", "fp32")
    assert names("m", "static", "m", "fp32") == ("static", "fp32") and names("a", "x", "b", "x") == ("a", "b")
    assert names("m", "x", "m", "x") == ("bundle", "baseline")
    found = machine()
    assert found["cores"] >= 1 and found["cpu"] and json.dumps(found)
    assert versions()["numpy"] == np.__version__


def test_command(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    options = ["--noise", "--rounds", "1", "--processes", "1", "--threads", "1", "--json", str(out)]
    line = [sys.executable, "-m", "u2edge", "bench", "-b", str(tiny_bundle), "-a", str(tiny_bundle), *options]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "time per chunk: " in done.stdout and "baseline" in done.stdout
    data = json.loads(out.read_text("utf-8"))
    assert data["ratios"]["bytes"]["value"] == 1.0 and data["bundle"]["process"]["processes"] == 1
    assert data["ratios"]["memory"]["value"] > 0 and data["bundle"]["chunks"] == data["baseline"]["chunks"] == 15
    assert data["command"].startswith("u2edge bench -b ")
