"""Word error rates: the whole way from audio to exit code on tiny random bundles."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
from places import ROOT

from calibration.corpus import Utterance, read_corpus
from edge.runtime import AudioError, DecodeOptions, OptionsError, Recognizer
from edge.runtime.engines.config import EngineConfig
from edge.runtime.features import StreamingFbank
from edge.runtime.manifest import FeatureOptions
from quant.measure.wer.compare import Selection, compare, group_of, report
from quant.measure.wer.decode import Cache, CacheError, SharedEncoder, transcribe
from quant.measure.wer.measure import MeasureError, Mode, WerOptions, choose_modes, measure_wer, rates


def noise(seconds: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 0.3, math.ceil(seconds * 10)), 1600)
    return (rng.standard_normal(len(loud)) * loud).clip(-1, 1).astype(np.float32)


def talkative(make_experiment: Callable[..., Path], out: Path, seed: int) -> Path:
    """A tiny random bundle that writes words when it hears noise: its CTC logits vary about zero."""
    import torch

    from edge.export.convert import convert
    from edge.model.checkpoint import load_experiment

    folder = make_experiment(seed=seed)
    model, state = load_experiment(folder).build(), torch.load(folder / "final.pt", weights_only=True)
    feats = torch.from_numpy(StreamingFbank(FeatureOptions(num_mel_bins=20)).accept(noise(10, 99)))[None]
    with torch.inference_mode():
        heard = model.encoder(feats, torch.tensor([feats.size(1)]), 16, -1)[0][0]
    state["ctc.ctc_lo.weight"] /= (heard @ state["ctc.ctc_lo.weight"].T).std(0)[:, None] / 4
    state["ctc.ctc_lo.bias"] = -(heard @ state["ctc.ctc_lo.weight"].T).mean(0)
    torch.save(state, folder / "final.pt")
    return convert(folder, out).directory


@pytest.fixture(scope="module")
def bundle(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(make_experiment, tmp_path_factory.mktemp("bundles") / "one", 0)


@pytest.fixture(scope="module")
def other_bundle(make_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights: it writes other texts."""
    return talkative(make_experiment, tmp_path_factory.mktemp("bundles") / "other", 5)


@pytest.fixture(scope="module")
def recognizer(bundle: Path) -> Recognizer:
    return Recognizer.load(bundle, EngineConfig(threads=1))


def write_corpus(folder: Path, texts: dict[str, str]) -> Path:
    """``folder`` with one recording of noise per name and its text."""
    folder.mkdir(exist_ok=True)
    rows = []
    for seed, (name, text) in enumerate(texts.items()):
        soundfile.write(folder / name, noise(1.5 + 0.7 * seed, seed), 16000)
        rows.append(json.dumps({"audio": name, "text": text, "speaker": f"{name[0]}-{seed}", "split": "dev"}))
    (folder / "manifest.jsonl").write_text("\n".join(rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def spoken(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings whose references are what the tiny bundle writes in chunks with rescoring."""
    folder = tmp_path_factory.mktemp("spoken")
    names = ("a1.wav", "a2.wav", "b1.wav", "b2.wav")
    write_corpus(folder, dict.fromkeys(names, ""))
    options = WerOptions().decode(Mode("streaming", "rescoring"))
    return write_corpus(folder, {name: transcribe(recognizer, folder / name, [options])[0] for name in names})


@pytest.mark.parametrize("options", [WerOptions(), WerOptions(chunk_ms=320, left_chunks=2, beam=4)])
def test_shared_pass_writes_what_separate_runs_write(
    recognizer: Recognizer, tmp_path: Path, options: WerOptions
) -> None:
    """25 s, so that the endpoint cuts the stream and the second pass encodes several utterances."""
    soundfile.write(tmp_path / "a.flac", noise(25, 3), 16000)
    modes = choose_modes([recognizer.manifest], reencode=True)
    assert [m.key for m in modes] == [
        "streaming/ctc",
        "streaming/rescoring",
        "streaming/second_pass",
        "full/ctc",
        "full/rescoring",
    ]
    decode = [options.decode(mode) for mode in modes]
    separate = [
        " ".join(result.text for result in recognizer.transcribe(tmp_path / "a.flac", options=each)) for each in decode
    ]
    assert transcribe(recognizer, tmp_path / "a.flac", decode) == separate
    assert len(set(separate)) >= 3, "modes that always agree would prove nothing"


def test_shared_encoder_computes_each_window_once(recognizer: Recognizer) -> None:
    shared = SharedEncoder(recognizer.backend)
    together = Recognizer(recognizer.bundle, shared)  # type: ignore[arg-type]
    streams = [together.stream(DecodeOptions(chunk=8, rescoring=r, reencode=False)) for r in (False, True)]
    streams.append(together.stream(DecodeOptions(chunk=8, left_chunks=1)))
    for stream in streams:
        stream.accept(noise(3, 0), 16000)
    chunks = [stream.stats.chunks for stream in streams]
    # The first window has no history: it is the same for every number of left chunks only when asked for alike.
    assert chunks[0] == chunks[1] == chunks[2] > 3 and shared.calls == 2 * chunks[0]


def test_own_output_as_reference_is_no_error(recognizer: Recognizer, spoken: Path) -> None:
    corpus = read_corpus(spoken, "dev")
    assert all(len(u.text.split()) > 1 for u in corpus), "the tiny bundle must write words"
    seen: list[tuple[float, float]] = []
    found = measure_wer(recognizer, corpus, progress=lambda done, total: seen.append((done, total)))
    assert rates(corpus, found)["streaming/rescoring"].errors == 0
    assert seen[-1][0] == pytest.approx(seen[-1][1]) == sum(t.seconds for t in found.transcripts)

    words = corpus[0].text.split()
    changed = [Utterance("a1.wav", corpus[0].audio, " ".join([*words[1:], "zzz", "zzz"])), *corpus[1:]]
    counted = rates(changed, found)["streaming/rescoring"]
    assert counted.insertions + counted.substitutions + counted.deletions == counted.errors == 3
    assert counted.deletions == 2 and counted.insertions == 1  # one word said before, two never said
    reported = {m.key: m for m in compare(changed, found)}["streaming/rescoring"]
    assert [u.name for u in reported.utterances] == ["a1.wav"] and reported.utterances[0].bundle_errors == 3
    assert {name: g.bundle.errors for name, g in reported.groups.items()} == {"all": 3, "a": 0, "b": 0}


def test_compare_names_what_got_worse(recognizer: Recognizer, other_bundle: Path, spoken: Path) -> None:
    corpus = read_corpus(spoken, "dev")
    modes = [Mode("streaming", "rescoring")]
    good = measure_wer(recognizer, corpus, modes)
    bad = measure_wer(Recognizer.load(other_bundle, EngineConfig(threads=1)), corpus, modes)
    result = report(corpus, Selection((spoken,), "dev"), bad, good)
    (mode,) = result.modes
    assert mode.baseline is not None and mode.difference is not None and mode.difference.points is not None
    assert mode.baseline.errors == 0 and mode.difference.points == pytest.approx(mode.bundle.wer)
    assert mode.difference.degradation == 1.0 and mode.difference.changed == mode.difference.worse == 4
    assert mode.difference.low is not None and 0 < mode.difference.low <= mode.difference.points
    assert sum(w.bundle for w in mode.words) <= mode.bundle.errors and mode.words[0].bundle > 0
    assert result.corpus.groups == {"a": 2, "b": 2} and result.corpus.speakers == 4
    with pytest.raises(MeasureError, match="same modes and options"):
        compare(corpus, bad, measure_wer(recognizer, corpus, modes, WerOptions(chunk_ms=320)))


def test_jobs_give_the_same_transcripts(recognizer: Recognizer, spoken: Path) -> None:
    corpus = read_corpus(spoken, "dev")
    assert measure_wer(recognizer, corpus, jobs=2).transcripts == measure_wer(recognizer, corpus).transcripts


def test_cache_resumes_an_interrupted_run(recognizer: Recognizer, spoken: Path, tmp_path: Path) -> None:
    corpus, cache = read_corpus(spoken, "dev"), tmp_path / "new" / "cache.jsonl"
    expected = measure_wer(recognizer, corpus)

    def stop(done: float, total: float) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_wer(recognizer, corpus, cache=cache, progress=stop)
    kept = cache.read_text("utf-8")
    assert 0 < kept.count("\n") < len(corpus) * len(expected.modes)
    cache.write_text(kept[:-5], "utf-8")  # killed in the middle of a line
    assert measure_wer(recognizer, corpus, cache=cache).transcripts == expected.transcripts

    class Unused:
        """A backend that must not be called: everything is in the cache."""

        def __init__(self, backend: Any) -> None:
            self.name, self.device, self.threads = backend.name, backend.device, backend.threads
            self.precision = backend.precision

        def step(self, *_: Any) -> Any:
            raise AssertionError("transcribed again")

    again = Recognizer(recognizer.bundle, Unused(recognizer.backend))  # type: ignore[arg-type]
    assert measure_wer(again, corpus, cache=cache).transcripts == expected.transcripts
    with pytest.raises(AssertionError, match="transcribed again"):
        measure_wer(again, corpus, options=WerOptions(chunk_ms=320), cache=cache)
    with pytest.raises(CacheError, match=r"manifest\.jsonl:1: expected a line of a transcript cache"):
        Cache(spoken / "manifest.jsonl")


def test_bad_audio_is_an_error_or_left_out(recognizer: Recognizer, spoken: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(spoken, tmp_path / "bad")
    (folder / "a2.wav").write_text("not audio")
    corpus = read_corpus(folder, "dev")
    with pytest.raises(AudioError, match=r"a2\.wav: expected WAV"):
        measure_wer(recognizer, corpus, progress=lambda *_: pytest.fail("headers come first"))
    soundfile.write(folder / "b1.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    found = measure_wer(recognizer, corpus, skip_bad=True)
    assert sorted(found.skipped) == ["a2.wav", "b1.wav"] and "finite samples" in found.skipped["b1.wav"]
    assert str(folder / "b1.wav") in found.skipped["b1.wav"]
    assert [t.name for t in found.transcripts] == ["a1.wav", "b2.wav"]
    with pytest.raises(MeasureError, match="found 1 that cannot"):
        measure_wer(recognizer, corpus[1:2], skip_bad=True)


def test_modes_follow_the_bundles(make_experiment: Callable[..., Path], recognizer: Recognizer, tmp_path: Path) -> None:
    from edge.export.convert import convert

    full = convert(make_experiment(encoder_conf={"causal": False, "use_dynamic_chunk": False}), tmp_path / "full")
    manifests = [recognizer.manifest, full.manifest]
    assert [m.key for m in choose_modes(manifests)] == ["full/ctc", "full/rescoring"]
    assert [m.key for m in choose_modes(manifests[:1], "streaming", "on")] == ["streaming/rescoring"]
    assert [m.key for m in choose_modes(manifests[:1], "full", "off")] == ["full/ctc"]
    corpus = [Utterance("x", tmp_path / "x.wav")]
    with pytest.raises(OptionsError, match="cannot stream"):
        measure_wer(Recognizer.load(full.directory), corpus, choose_modes(manifests, "streaming"))


def test_groups_are_sources() -> None:
    assert group_of(Utterance("so762/1/a.flac", Path(), speaker="so762-0001")) == "so762"
    assert group_of(Utterance("lj/a.flac", Path())) == "lj" and group_of(Utterance("a.flac", Path())) == "all"
    digits = Utterance("digits/so762/1.flac", Path(), speaker="so762-1")
    assert group_of(digits, several=True) == "digits/so762"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "u2edge", "wer", *map(str, arguments), "--threads", "1"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_max_drop_is_an_exit_code(bundle: Path, other_bundle: Path, spoken: Path, tmp_path: Path) -> None:
    out, errors = tmp_path / "wer.json", tmp_path / "errors.jsonl"
    options = ("--data", spoken, "--max-drop", 0.2, "--rescoring", "on")
    other = Recognizer.load(other_bundle).manifest.name
    done = command("-b", other_bundle, "-a", bundle, *options, "--json", out, "--errors", errors)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: WER rises by more than 0.2 points: ") and " in streaming/rescoring" in last
    assert f"{other} loses " in done.stdout and "Traceback" not in done.stderr

    data = json.loads(out.read_text("utf-8"))
    mode = next(m for m in data["modes"] if m["key"] == "streaming/rescoring")
    assert mode["baseline"]["wer"] == 0.0 and mode["bundle"]["wer"] == pytest.approx(mode["difference"]["points"])
    texts = [(u["reference"], u["bundle"][mode["key"]], u["baseline"][mode["key"]]) for u in data["utterances"]]
    assert all(reference == baseline for reference, _, baseline in texts)
    assert mode["bundle"]["wer"] == pytest.approx(100 * jiwer.wer([t[0] for t in texts], [t[1] for t in texts]))
    assert data["bundle"]["name"] == other and data["command"].startswith("u2edge wer -b ")
    assert list(data["corpus"]["manifests"]) == [str(spoken)] and data["versions"]["onnxruntime"]
    rows = [json.loads(line) for line in errors.read_text("utf-8").splitlines()]
    assert {row["audio"] for row in rows if row["mode"] == mode["key"]} == {"a1.wav", "a2.wav", "b1.wav", "b2.wav"}

    better = command("-b", bundle, "-a", other_bundle, *options, "--mode", "streaming")
    assert (better.returncode, "error" in better.stderr) == (0, False)
    same = command("-b", bundle, "-a", bundle, *options, "--max-drop", 0)
    assert same.returncode == 0 and "write the same text everywhere" in same.stdout


def test_refusals_are_one_line(bundle: Path, spoken: Path) -> None:
    for options, text in (
        (["--data", spoken, "--max-drop", "0.2"], "--max-drop: expected a bundle to compare with"),
        (["--data", spoken, "--split", "test"], "at least one utterance of split 'test'"),
        (["--data", spoken, "--chunk-ms", "50"], "chunk_ms: expected a multiple of 40 ms"),
        (["--data", spoken / "nowhere"], "expected a manifest"),
    ):
        done = command("-b", bundle, *options)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and text in done.stderr
        assert done.stderr.count("\n") == 1


def test_measuring_needs_no_torch(bundle: Path, spoken: Path) -> None:
    script = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "yaml", "openvino", "neural_compressor", "matplotlib", "psutil"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from u2edge.cli import main
for arguments in sys.argv[1:]:
    sys.argv = ["u2edge", *arguments.split("~")]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
    wer = f"wer~-b~{bundle}~--data~{spoken}~--limit~1"
    bench = f"bench~-b~{bundle}~--noise~--rounds~1~--processes~1"
    done = subprocess.run(
        [sys.executable, "-c", script, wer, bench], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "WER %" in done.stdout and "real-time factor" in done.stdout


def test_a_folder_of_recordings_with_transcripts_needs_no_manifest() -> None:
    """As `make wer` types it on a fresh clone."""
    samples = ROOT / "models" / "reference" / "samples"
    line = [
        sys.executable,
        "-m",
        "u2edge",
        "wer",
        "-b",
        "models/reference-bundle",
        "-d",
        str(samples),
        "--limit",
        "2",
    ]
    line += ["--mode", "full", "--rescoring", "off", "--threads", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 recordings" in done.stdout
