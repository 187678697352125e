"""Corpora as WeNet, NeMo, Lhotse and Kaldi write them: which file, which part, what is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from calibration.corpus import CorpusError, digest, read_corpus, write_manifest
from edge.runtime import Clip, load_audio

RATE = 8000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of 4 s, 2 channels, in which every sample tells its time."""
    ramp = np.linspace(-1, 1, 4 * RATE, endpoint=False)
    soundfile.write(tmp_path / "a.wav", np.stack([ramp, -ramp], axis=1), RATE, subtype="FLOAT")
    return tmp_path


def cut(**settings: Any) -> dict[str, Any]:
    """A cut as lhotse.CutSet.to_file writes it."""
    recording = {
        "id": "a",
        "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
        "sampling_rate": RATE,
        "num_samples": 4 * RATE,
        "duration": 4.0,
        "channel_ids": [0],
    }
    found = {
        "id": "a-1",
        "start": 1.0,
        "duration": 1.5,
        "channel": 0,
        "supervisions": [
            {"id": "2", "recording_id": "a", "start": 0.8, "duration": 0.7, "text": "two", "speaker": "anna"},
            {"id": "1", "recording_id": "a", "start": 0.0, "duration": 0.8, "text": "one", "speaker": "anna"},
        ],
        "recording": recording,
        "type": "MonoCut",
    }
    return found | settings


def stereo_cut() -> dict[str, Any]:
    found = cut(channel=1)
    found["recording"]["sources"][0]["channels"] = [0, 1]
    found["recording"]["channel_ids"] = [0, 1]
    return found


ROWS: dict[str, tuple[dict[str, Any], Clip, str]] = {
    "ours": ({"audio": "a.wav", "text": "one"}, Clip(Path("a.wav")), "one"),
    "ours, a part": ({"audio": "a.wav", "text": "one", "start": 1, "end": 2.5}, Clip(Path("a.wav"), 1.0, 1.5), "one"),
    "ours, a channel": ({"audio": "a.wav", "channel": 2}, Clip(Path("a.wav"), channel=2), ""),
    "wenet": ({"key": "a", "wav": "a.wav", "txt": "一 二"}, Clip(Path("a.wav")), "一 二"),
    "wenet, a segment": (
        {"key": "a_0", "wav": "a.wav", "txt": "one", "start": "0.5", "end": "2.5"},
        Clip(Path("a.wav"), 0.5, 2.0),
        "one",
    ),
    "nemo": ({"audio_filepath": "a.wav", "duration": 4.0, "text": "one"}, Clip(Path("a.wav")), "one"),
    "nemo, a part": (
        {"audio_filepath": "a.wav", "offset": 1.5, "duration": 1.0, "text": "one"},
        Clip(Path("a.wav"), 1.5, 1.0),
        "one",
    ),
    "lhotse": (cut(), Clip(Path("a.wav"), 1.0, 1.5), "one two"),
    "lhotse, whole": (cut(start=0.0, duration=4.0), Clip(Path("a.wav")), "one two"),
    "lhotse, second channel": (stereo_cut(), Clip(Path("a.wav"), 1.0, 1.5, 2), "one two"),
    "to the end": ({"audio": "a.wav", "start": 3}, Clip(Path("a.wav"), 3.0), ""),
    "milliseconds": (
        {"audio": "a.wav", "start_ms": 500, "end_ms": 1500, "text": "one"},
        Clip(Path("a.wav"), 0.5, 1.0),
        "one",
    ),
    "wenet 1.0, a segment": ({"key": "a", "wav": "a.wav,0.5,1.5", "txt": "one"}, Clip(Path("a.wav"), 0.5, 1.0), "one"),
    "transcript": ({"path": "a.wav", "sentence": "one"}, Clip(Path("a.wav")), "one"),
}


@pytest.mark.parametrize(("row", "clip", "text"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("zipped", [False, True])
def test_lines_of_all_toolkits(folder: Path, row: dict[str, Any], clip: Clip, text: str, zipped: bool) -> None:
    path = folder / ("list.jsonl.gz" if zipped else "list.jsonl")
    line = json.dumps(row, ensure_ascii=False) + "\n"
    path.write_bytes(gzip.compress(line.encode()) if zipped else line.encode())
    (found,) = read_corpus(path)
    assert found.clip == Clip(folder / clip.path, clip.start_s, clip.seconds, clip.channel) and found.text == text
    samples, rate = load_audio(found.clip)
    first = samples if samples.ndim == 1 else samples[:, 0]
    assert len(first) == round((4.0 - clip.start_s if clip.seconds is None else clip.seconds) * rate)
    says = -1 + clip.start_s / 2  # the ramp: -1 at the beginning, 0 after 2 s; the other channel is its negative
    assert first[0] == pytest.approx(-says if clip.channel == 2 else says)


def test_parts_of_one_recording_have_names_of_their_own_and_survive_writing(folder: Path) -> None:
    rows = [
        {"audio": "a.wav", "start": 0, "end": 1},
        {"audio": "a.wav", "start": 1, "end": 2},
        {"key": "x", "wav": "a.wav", "start": 2, "end": 3, "txt": "three"},
        {"audio": "a.wav"},
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_corpus(folder / "list.jsonl")
    assert [u.name for u in found] == ["a.wav#0-1", "a.wav#1-2", "a.wav#x", "a.wav"]
    write_manifest(found, folder / "again.jsonl")
    assert [u.clip for u in read_corpus(folder / "again.jsonl")] == [u.clip for u in found]


@pytest.fixture
def kaldi(folder: Path) -> Path:
    (folder / "wav.scp").write_text("rec1 a.wav\nrec2\ta.wav\n")
    (folder / "text").write_text("utt1 one two\nutt2 three\n")
    (folder / "utt2spk").write_text("utt1 anna\nutt2 bob\n")
    (folder / "segments").write_text("utt1 rec1 0.5 1.5\nutt2 rec2 2 -1\n")
    return folder


def test_a_folder_of_kaldi(kaldi: Path) -> None:
    one, two = read_corpus(kaldi)
    assert (one.clip, one.text, one.speaker) == (Clip(kaldi / "a.wav", 0.5, 1.0), "one two", "anna")
    assert (two.clip, two.text, two.speaker) == (Clip(kaldi / "a.wav", 2.0), "three", "bob")
    before = digest(kaldi)
    (kaldi / "text").write_text("utt1 one\n")
    assert digest(kaldi) != before
    (kaldi / "segments").unlink()
    (kaldi / "wav.scp").write_text("utt1 a.wav\n")
    (whole,) = read_corpus(kaldi)
    assert whole.clip == Clip(kaldi / "a.wav") and whole.name == "a.wav" and whole.text == "one"


REFUSED: dict[str, tuple[str, str]] = {
    "shards": ("/data/shards_000000.tar\n", "found a list of shards .*unpack them"),
    "no audio": ('{"text": "one"}\n', "expected a field 'audio' with a path, found text"),
    "backwards": ('{"audio": "a.wav", "start": 2, "end": 1}\n', "a part of positive length, found 2.0 to 1.0 s"),
    "words for times": ('{"audio": "a.wav", "start": "soon"}\n', "start: expected seconds, found 'soon'"),
    "negative": ('{"audio": "a.wav", "offset": -1}\n', "offset: expected seconds, found -1"),
    "samples": ('{"audio": "a.wav", "frame_offset": 16000}\n', "frame_offset: a part in samples is not read"),
    "supervision": ('{"id": "1", "recording_id": "a", "text": "one"}\n', "found a Lhotse supervision"),
    "channel": ('{"audio": "a.wav", "channel": "left"}\n', "expected a channel number, found 'left'"),
    "mixed cut": (json.dumps({"type": "MixedCut", "tracks": [], "supervisions": []}) + "\n", "found 'MixedCut'"),
    "features": (
        json.dumps(cut(recording={"sources": [{"type": "command", "source": "sox ..."}]})) + "\n",
        "a Lhotse cut of one recording in one file",
    ),
}


@pytest.mark.parametrize(("lines", "text"), REFUSED.values(), ids=REFUSED)
def test_lines_that_are_refused(folder: Path, lines: str, text: str) -> None:
    (folder / "list.jsonl").write_text(lines)
    with pytest.raises(CorpusError, match=text) as caught:
        read_corpus(folder / "list.jsonl")
    assert f"{folder / 'list.jsonl'}:1" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lines", "text"),
    [
        ("wav.scp", "rec1 sph2pipe -f wav a.sph |\nrec2 a.wav\n", "found a command .*nothing is run here"),
        ("wav.scp", "rec1 feats.ark:12\nrec2 a.wav\n", "a place in an archive"),
        ("segments", "utt1 rec9 0 1\n", "expected a recording of wav.scp, found 'rec9'"),
        ("segments", "utt1 rec1 0\n", "expected 'utterance recording start end'"),
        ("segments", "utt1 rec1 a b\n", "expected times in seconds"),
    ],
)
def test_folders_of_kaldi_that_are_refused(kaldi: Path, name: str, lines: str, text: str) -> None:
    (kaldi / name).write_text(lines)
    with pytest.raises(CorpusError, match=text):
        read_corpus(kaldi)


def test_paths_of_windows(folder: Path) -> None:
    (folder / "wavs").mkdir()
    (folder / "a.wav").rename(folder / "wavs" / "a.wav")
    (folder / "list.jsonl").write_text(json.dumps({"audio": r"wavs\a.wav"}) + "\n")
    (found,) = read_corpus(folder / "list.jsonl")
    assert found.audio == folder / "wavs" / "a.wav"
