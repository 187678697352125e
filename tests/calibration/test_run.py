"""The whole run: killed and continued, in shards, with bad recordings, as a command."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from calibration_helpers import corpus, one_thread, write_corpus
from places import ROOT

from calibration.collect import CalibrationError
from calibration.corpus import CorpusError, Utterance, read_corpus
from calibration.profile import CalibrationOptions, Profile, ProfileError, merge
from calibration.run import Interrupted, calibrate, part_of
from edge.runtime.errors import AudioError

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
COUNT = 10
OPTIONS = CalibrationOptions(chunks=(4, -1), dither=1.0)

KILLED = f"""
import os, signal, sys
from pathlib import Path
import torch
import calibration.run as run
from calibration.corpus import read_corpus
from calibration.profile import CalibrationOptions
torch.set_num_threads(1)
experiment, folder, out = map(Path, sys.argv[1:])
add = run.State.add
def add_or_die(state, profile):
    if state.done == {COUNT} // 2:
        os.kill(os.getpid(), signal.SIGKILL)
    add(state, profile)
run.State.add = add_or_die
run.calibrate(experiment, read_corpus(folder), out, {OPTIONS!r}, save_every=0.05)
"""


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNT)


@pytest.fixture(scope="module")
def whole(pristine: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The profile of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "a.profile"
    with one_thread():
        calibrate(pristine, read_corpus(folder), out, OPTIONS)
    assert not part_of(out).exists()
    return out.read_bytes()


def test_killed_at_half_and_continued_gives_the_same_bytes(
    pristine: Path, folder: Path, whole: bytes, tmp_path: Path
) -> None:
    """SIGKILL after half of the work, some of which was not saved yet."""
    out = tmp_path / "a.profile"
    command = [sys.executable, "-c", KILLED, str(pristine), str(folder), str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL and not out.exists(), done.stderr
    with pytest.raises(ProfileError, match="unfinished run"):
        Profile.load(part_of(out))
    left = Profile.load(part_of(out), unfinished=True).header.utterances
    assert 0 < len(left) <= COUNT // 2
    said: list[str] = []
    calibrate(pristine, read_corpus(folder), out, OPTIONS, report=said.append)
    assert out.read_bytes() == whole
    assert said[0] == f"continuing after {len(left)} of {COUNT} utterances ({part_of(out)})"
    assert not part_of(out).exists()


def test_shards_merge_to_the_whole(pristine: Path, folder: Path, whole: bytes, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.profile" for i in (1, 2)]
    parts = [
        calibrate(pristine, read_corpus(folder), path, OPTIONS, shard=(i, 2)) for i, path in enumerate(paths, start=1)
    ]
    assert len(parts[0].header.utterances) == len(parts[1].header.utterances) == COUNT // 2
    loaded = [Profile.load(path) for path in paths]
    assert merge(loaded).to_bytes() == merge(loaded[::-1]).to_bytes() == whole
    with pytest.raises(ProfileError, match=r"'002\.wav' in two|'000\.wav' in two"):
        merge([parts[0], parts[0]])
    other = dataclasses.replace(parts[1], header=dataclasses.replace(parts[1].header, checkpoint_sha256="0" * 64))
    with pytest.raises(ProfileError, match="one checkpoint"):
        merge([parts[0], other])


def test_order_does_not_matter(pristine: Path, folder: Path, whole: bytes, tmp_path: Path) -> None:
    calibrate(pristine, read_corpus(folder)[::-1], tmp_path / "a.profile", OPTIONS)
    assert (tmp_path / "a.profile").read_bytes() == whole


def test_sigterm_saves_and_the_next_run_continues(pristine: Path, tmp_path: Path) -> None:
    work, out = corpus(tmp_path / "audio", 24), tmp_path / "a.profile"
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted) as caught:
        calibrate(pristine, work, out, OPTIONS)
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    heard = len(Profile.load(part_of(out), unfinished=True).header.utterances)
    assert 0 < heard < 24
    said: list[str] = []
    calibrate(pristine, work, out, OPTIONS, report=said.append)
    assert said[0].startswith(f"continuing after {heard} of 24")
    calibrate(pristine, work, tmp_path / "b.profile", OPTIONS)
    assert out.read_bytes() == (tmp_path / "b.profile").read_bytes()


def test_state_of_another_run_is_refused(pristine: Path, folder: Path, experiment: Path, tmp_path: Path) -> None:
    import torch

    out, utterances = tmp_path / "a.profile", read_corpus(folder)
    broken = [*utterances[:3], Utterance("x.wav", tmp_path / "x.wav")]
    with pytest.raises(AudioError, match=r"x\.wav: no such audio file; .* --skip-bad"):
        calibrate(pristine, broken, out, OPTIONS)
    state = part_of(out).read_bytes()
    weights = torch.load(experiment / "final.pt", weights_only=True)
    weights["ctc.ctc_lo.bias"] += 1
    torch.save(weights, experiment / "final.pt")
    for checkpoint, options, work, what in (
        (experiment, OPTIONS, broken, "checkpoint"),
        (pristine, CalibrationOptions(chunks=(4, -1)), broken, "options"),
        (pristine, OPTIONS, utterances, "list of recordings"),
    ):
        with pytest.raises(CalibrationError, match=f"another {what}; .*--restart"):
            calibrate(checkpoint, work, out, options)
        assert part_of(out).read_bytes() == state and not out.exists()
    part_of(out).write_bytes(state[:-500])
    with pytest.raises(CalibrationError, match=r"damaged.*--restart"):
        calibrate(pristine, broken, out, OPTIONS)
    fresh = calibrate(pristine, utterances[:2], out, OPTIONS, restart=True)
    assert fresh.header.utterances == ("000.wav", "001.wav") and not part_of(out).exists()


def test_unreadable_file_in_the_middle(pristine: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "audio")
    (tmp_path / "audio" / "004.wav").write_bytes(b"this is no audio")
    soundfile.write(tmp_path / "audio" / "007.wav", np.zeros(400, np.int16), 16000)
    work, out = read_corpus(tmp_path / "audio"), tmp_path / "a.profile"
    with pytest.raises(AudioError, match=r"audio/004\.wav: .*--skip-bad"):
        calibrate(pristine, work, out, OPTIONS)
    assert Profile.load(part_of(out), unfinished=True).header.utterances == tuple(f"{i:03d}.wav" for i in range(4))
    profile = calibrate(pristine, work, out, OPTIONS, skip_bad=True)  # goes on after the four
    assert profile.header.skipped == ("004.wav", "007.wav")
    good = calibrate(pristine, [u for u in work if u.name not in profile.header.skipped], out, OPTIONS)
    without = dataclasses.replace(profile, header=dataclasses.replace(profile.header, skipped=()))
    assert without.to_bytes() == good.to_bytes()
    bad = [u for u in work if u.name in profile.header.skipped]
    with pytest.raises(CalibrationError, match="none among 2"):
        calibrate(pristine, bad, tmp_path / "b.profile", OPTIONS, skip_bad=True)


def test_damaged_profiles(whole: bytes, tmp_path: Path) -> None:
    """Cut anywhere or with a byte changed: a ProfileError, or, where the byte means nothing, the same profile."""
    path, rng = tmp_path / "a.profile", np.random.default_rng(0)
    cuts = [whole[: int(at)] for at in rng.integers(0, len(whole), 40)]
    flips = []
    for at in rng.integers(0, len(whole), 200):
        data = bytearray(whole)
        data[at] ^= int(rng.integers(1, 256))
        flips.append(bytes(data))
    refused = 0
    for data in [b"", b"PK", b"{}", *cuts, *flips]:
        path.write_bytes(data)
        try:
            assert Profile.load(path).to_bytes() == whole
        except ProfileError as error:
            assert str(path) in str(error) and str(error).isprintable()
            refused += 1
    assert refused > 200
    with pytest.raises(ProfileError, match="found none; make one: u2edge calibrate"):
        Profile.load(tmp_path / "b.profile")


def test_corpora(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("")
    with pytest.raises(CorpusError, match="at least one utterance, found 0 lines"):
        read_corpus(tmp_path)
    manifest.write_text(json.dumps({"audio": "gone.wav"}))
    with pytest.raises(CorpusError, match=r"manifest\.jsonl:1: .*gone\.wav, found none"):
        read_corpus(tmp_path)
    assert [u.name for u in read_corpus(tmp_path, check_files=False)] == ["gone.wav"]
    for line, message in (("{", "JSON"), ("[]", "object"), ('{"text": "a"}', "'audio'")):
        manifest.write_text(line)
        with pytest.raises(CorpusError, match=message):
            read_corpus(manifest)
    assert len(read_corpus(folder, split="dev")) == 2 and len(read_corpus(folder, split="train")) == COUNT - 2
    assert [u.name for u in read_corpus(folder, limit=3)] == ["000.wav", "003.wav", "006.wav"]


def test_folder_without_manifest(folder: Path, tmp_path: Path) -> None:
    for name in ("001.wav", "000.wav"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "001.txt").write_text("two  words\n")
    (tmp_path / "SOURCES.md").write_text("no recording")
    assert [(u.name, u.text, u.audio) for u in read_corpus(tmp_path)] == [
        ("000.wav", "", tmp_path / "000.wav"),
        ("001.wav", "two words", tmp_path / "001.wav"),
    ]
    with pytest.raises(CorpusError, match=r"000\.wav: .*'text'"):
        read_corpus(tmp_path, need_text=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"manifest\.jsonl .* or audio files"):
        read_corpus(tmp_path / "empty")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "u2edge", *map(str, arguments)]


def test_command_stopped_by_ctrl_c_continues(pristine: Path, tmp_path: Path) -> None:
    """u2edge calibrate, Ctrl-C, the same again, then merge; the bytes are those of one call from Python."""
    work, out = corpus(tmp_path / "audio", 30, seconds=0.5), tmp_path / "a.profile"
    began = time.perf_counter()
    calibrate(pristine, work, tmp_path / "b.profile", CalibrationOptions(chunks=(4,)))
    took = time.perf_counter() - began
    calibrate_it = command("calibrate", pristine, "--data", tmp_path / "audio", "--split", "", "--chunk", 4, "-o", out)
    process = subprocess.Popen(calibrate_it, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline().startswith("calibrate: ")
    time.sleep(took / 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped (SIGINT)" in said and "same command to continue" in said and "Traceback" not in said
    assert part_of(out).exists() and not out.exists()
    done = subprocess.run(calibrate_it, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "continuing after" in done.stderr, done.stderr
    assert "encoder.1.feed_forward_macaron" in done.stdout and "30 recordings" in done.stdout
    assert f"u2edge quantize {pristine} --profile {out}" in done.stderr
    assert out.read_bytes() == (tmp_path / "b.profile").read_bytes()


def test_commands_say_what_is_wrong(
    pristine: Path,
    folder: Path,
    whole: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from u2edge import cli

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["u2edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().err

    code, said = run("calibrate", pristine)
    assert code == 1 and "name some with --data" in said
    code, said = run("calibrate", pristine, "--data", folder, "--shard", "3/2", "-o", tmp_path / "x.profile")
    assert code == 1 and "--shard: expected I/N" in said
    code, said = run("calibrate", pristine, "--data", folder, "--match", "zzz", "-o", tmp_path / "x.profile")
    assert code == 1 and "found 10 lines and none that fits" in said
    (tmp_path / "a.profile").write_bytes(whole)
    code, said = run("merge", tmp_path / "a.profile", tmp_path / "a.profile", "-o", tmp_path / "b.profile")
    assert code == 1 and "'000.wav' in two" in said and not (tmp_path / "b.profile").exists()
    code, said = run("merge", tmp_path / "a.profile", "-o", tmp_path / "b.profile")
    assert code == 0 and (tmp_path / "b.profile").read_bytes() == whole
