"""Loading WeNet experiments: every form that exists is accepted, all else is refused with one line that says why."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import MEL, cmvn_json, features, random_model, refusal, train_yaml, units, write_experiment
from torch import Tensor

from edge.model.checkpoint import CheckpointError, load_experiment
from edge.runtime.errors import EdgeError, TokenError

State = dict[str, Tensor]
CMVN = ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd")


def read_state(folder: Path) -> State:
    state: State = torch.load(folder / "final.pt", weights_only=True)
    return state


def edit_state(folder: Path, change: Callable[[State], Any]) -> None:
    state = read_state(folder)
    change(state)
    torch.save(state, folder / "final.pt")


def same_weights(one: Path, other: Path, tolerance: float = 0.0) -> None:
    a, b = load_experiment(one).weights, load_experiment(other).weights
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype == torch.float32
        torch.testing.assert_close(a[key], b[key], atol=tolerance, rtol=tolerance)


# What is accepted


def test_an_experiment_is_read_whole(pristine: Path) -> None:
    found = load_experiment(pristine)
    assert found.path == pristine
    assert found.tokens[:4] == ("<blank>", "<unk>", "<sos/eos>", "▁") and len(found.tokens) == 12
    assert (found.config.blank, found.config.sos, found.config.eos) == (0, 2, 2)
    assert found.config.loss.reverse_weight == 0.3 and found.config.loss.lsm_weight == 0.1
    assert found.config.features.num_mel_bins == MEL
    assert found.parameters() == sum(p.numel() for p in random_model(train_yaml()).parameters())
    model = found.build()
    assert not model.training
    feats = features(120)
    with torch.inference_mode():
        have, want = (m.encoder(feats, torch.tensor([120]))[0] for m in (model, random_model(train_yaml())))
    torch.testing.assert_close(have, want, atol=0, rtol=0)


FORMS: dict[str, Callable[[State], Any]] = {
    "wrapped": lambda s: {"model": s, "epoch": 3},
    "module_prefix": lambda s: {f"module.{k}": v for k, v in s.items()},
    "wrapped_prefix": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "parameters": lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
    "with_tables_and_counters": lambda s: {
        **s,
        "encoder.embed.pos_enc.pe": torch.zeros(1, 5000, 16),
        "encoder.encoders.0.conv_module.norm.num_batches_tracked": torch.tensor(7),
    },
    "old_concat_linear": lambda s: {
        **s,
        "encoder.encoders.0.concat_linear.weight": torch.zeros(16, 32),
        "encoder.encoders.0.concat_linear.bias": torch.zeros(16),
    },
    "double": lambda s: {k: v.double() for k, v in s.items()},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_final_pt(pristine: Path, experiment: Path, form: Callable[[State], Any]) -> None:
    torch.save(form(read_state(pristine)), experiment / "final.pt")
    same_weights(experiment, pristine)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_is_widened(pristine: Path, experiment: Path, dtype: torch.dtype, tolerance: float) -> None:
    edit_state(experiment, lambda s: s.update({k: v.to(dtype) for k, v in s.items()}))
    same_weights(experiment, pristine, tolerance)


def test_a_weights_file_of_any_name(pristine: Path, experiment: Path) -> None:
    (experiment / "final.pt").rename(experiment / "avg_30.pt")
    same_weights(experiment / "avg_30.pt", pristine)
    same_weights(experiment, pristine)
    assert any("avg_30.pt: taken as the weights" in note for note in load_experiment(experiment).notes)
    shutil.copy(experiment / "avg_30.pt", experiment / "epoch_29.pt")
    message = refusal(experiment, CheckpointError)
    assert "expected one of final.pt" in message and "pass the weights file itself" in message
    assert "found 2 others: avg_30.pt, epoch_29.pt" in message


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(pristine: Path, experiment: Path, prefix: str) -> None:
    from safetensors.torch import save_file

    save_file({prefix + k: v for k, v in read_state(pristine).items()}, experiment / "model.safetensors")
    (experiment / "final.pt").unlink()
    same_weights(experiment, pristine)
    (experiment / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "model.safetensors: not a safetensors file" in refusal(experiment, CheckpointError)


def kaldi_text(state: State, frames: int) -> str:
    data = json.loads(cmvn_json(state, frames))
    rows = [*data["mean_stat"], frames], [*data["var_stat"], 0]
    return " [\n" + "\n".join("  " + " ".join(map(repr, row)) for row in rows) + " ]\n"


@pytest.mark.parametrize("form", ["json", "kaldi"])
def test_cmvn_from_its_file(pristine: Path, experiment: Path, form: str) -> None:
    state = read_state(pristine)
    edit_state(experiment, lambda s: [s.pop(key) for key in CMVN])
    (experiment / "global_cmvn").write_text(cmvn_json(state) if form == "json" else kaldi_text(state, 500))
    same_weights(experiment, pristine, 1e-5)


def test_a_silent_channel_has_wenets_floor(experiment: Path) -> None:
    edit_state(experiment, lambda s: [s.pop(key) for key in CMVN])
    (experiment / "global_cmvn").write_text(
        json.dumps({"mean_stat": [4.0] * MEL, "var_stat": [8.0] * MEL, "frame_num": 2})
    )
    istd = load_experiment(experiment).weights["encoder.global_cmvn.istd"]
    torch.testing.assert_close(istd, torch.full((MEL,), 1e10))


def test_a_model_without_cmvn(make_experiment: Callable[..., Path]) -> None:
    folder = make_experiment(cmvn=None)
    assert not (folder / "global_cmvn").exists()
    assert load_experiment(folder).build().encoder.global_cmvn is None
    edit_state(folder, lambda s: s.update({key: torch.ones(MEL) for key in CMVN}))
    assert "holds global_cmvn, but train.yaml has no 'cmvn: global_cmvn'" in refusal(folder, CheckpointError)


def test_units_of_windows_and_of_unicode(pristine: Path, experiment: Path) -> None:
    """A byte order mark, CRLF, ids in any order, and tokens that str.splitlines() would cut in two."""
    lines = units(12).replace("a 4", "\x85 4").replace("b 5", "\u2028 5").split("\n")[:-1]
    (experiment / "units.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(reversed(lines)).encode())
    tokens = load_experiment(experiment).tokens
    assert tokens[4:6] == ("\x85", "\u2028")
    assert tokens[6:] == load_experiment(pristine).tokens[6:]


# What is refused: weights

WRONG_STATES: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (lambda s: s.pop("ctc.ctc_lo.bias"), r"missing key ctc\.ctc_lo\.bias \(12,\); check that train.yaml"),
    "two_missing": (lambda s: [s.pop(f"ctc.ctc_lo.{n}") for n in ("bias", "weight")], r"missing key .*\(and 1 more\)"),
    "surplus": (lambda s: s.update({"ctc.new\n": torch.zeros(2)}), r"surplus key 'ctc\.new\\n' \(2,\)"),
    "shape": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(13)}),
        r"key ctc\.ctc_lo\.bias: expected shape \(12,\), found \(13,\)",
    ),
    "enormous": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(1).expand(10**13)}),  # four bytes on disk
        r"expected shape \(12,\), found \(10000000000000,\)",
    ),
    "nan": (lambda s: s["ctc.ctc_lo.bias"].fill_(torch.nan), r"key ctc\.ctc_lo\.bias: expected finite numbers"),
    "too_large": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.full((12,), 1e300, dtype=torch.float64)}),
        r"key ctc\.ctc_lo\.bias: expected finite numbers",
    ),
    "integers": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(12, dtype=torch.int64)}),
        r"key ctc\.ctc_lo\.bias: expected floating-point numbers, found int64",
    ),
    "complex": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(12, dtype=torch.complex64)}),
        r"expected floating-point numbers, found complex64",
    ),
    "sparse": (
        lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(12).to_sparse()}),
        r"found float32 \(torch.sparse_coo",
    ),
    "no_values": (lambda s: s.update({"ctc.ctc_lo.bias": torch.zeros(12, device="meta")}), r"found float32 .*meta\)"),
    "blocks": (
        lambda s: [s.pop(key) for key in list(s) if key.startswith("encoder.encoders.1.")],
        r"train.yaml says 2 encoder blocks \(encoder_conf\.num_blocks\), the checkpoint has 1; use the train.yaml",
    ),
    "experts": (
        lambda s: [s.pop(key) for key in list(s) if ".experts.3." in key],
        r"train.yaml says 4 experts \(encoder_conf\.n_expert\), the checkpoint has 3",
    ),
    "decoder_blocks": (
        lambda s: [s.pop(key) for key in list(s) if key.startswith("decoder.left_decoder.decoders.0.")],
        r"train.yaml says 1 decoder blocks \(decoder_conf\.num_blocks\), the checkpoint has 0",
    ),
    "another_model": (
        lambda s: [s.update({f"other.{key}": s.pop(key)}) for key in list(s)],
        r"none of its \d+ keys belongs to a WeNet U2\+\+ model \(first key: 'other\.",
    ),
    "something_else": (
        lambda s: s.update({"epoch": [3]}),
        r"expected a state dict of tensors.*found list under 'epoch'",
    ),
}


@pytest.mark.parametrize(("change", "pattern"), WRONG_STATES.values(), ids=WRONG_STATES)
def test_wrong_weights(experiment: Path, change: Callable[[State], Any], pattern: str) -> None:
    edit_state(experiment, change)
    message = refusal(experiment, CheckpointError)
    assert message.startswith(f"{experiment}/final.pt: ") and re.search(pattern, message), message


class Code:
    """Unpickling this runs code, unless the loader refuses."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_code_in_a_checkpoint_is_not_run(experiment: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # the attack works when nobody stops it
    mark.unlink()
    state = read_state(experiment)
    for save in (
        lambda path: path.write_bytes(pickle.dumps(Code(mark))),
        lambda path: torch.save(Code(mark), path),
        lambda path: torch.save({**state, "ctc.ctc_lo.bias": Code(mark)}, path),
    ):
        save(experiment / "final.pt")
        message = refusal(experiment, CheckpointError)
        assert "not a torch checkpoint of plain tensors" in message and "weights_only" not in message
        assert not mark.exists()
    assert "it holds code or objects (" in message


NOT_CHECKPOINTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "the file is empty; copy the checkpoint again"),
    "text": (lambda good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is text ('version https"),
    "half": (lambda good: good[: len(good) // 2], "it is damaged or of another format"),
    "zeros": (lambda good: bytes(9999), "it is damaged or of another format"),
    "picture": (lambda good: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "it is damaged or of another format"),
    "a_number": (lambda good: pickle.dumps(3), "it is damaged or of another format"),
}


@pytest.mark.parametrize(("make", "text"), NOT_CHECKPOINTS.values(), ids=NOT_CHECKPOINTS)
def test_files_that_are_not_checkpoints(experiment: Path, make: Callable[[bytes], bytes], text: str) -> None:
    path = experiment / "final.pt"
    path.write_bytes(make(path.read_bytes()))
    assert text in refusal(experiment, CheckpointError)


def test_models_saved_whole(experiment: Path) -> None:
    path = experiment / "final.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "it holds code or objects (torch.nn.modules.linear.Linear)" in refusal(experiment, CheckpointError)
    torch.save([torch.zeros(1)], path)
    assert "plain or under 'model', found list" in refusal(experiment, CheckpointError)
    torch.save({}, path)
    assert "plain or under 'model', found an empty one" in refusal(experiment, CheckpointError)


# What is refused: units, CMVN, files

WRONG_UNITS: dict[str, tuple[bytes, type[EdgeError], str]] = {
    "empty": (b"", TokenError, "units.txt: expected one 'token id' per line, found an empty file"),
    "gap": (b"a 0\nb 2\n", TokenError, "units.txt:2: expected ids 0..1 without a gap, id 1 is missing"),
    "duplicate": (b"a 0\nb 0\n", TokenError, "units.txt:2: duplicate id 0"),
    "one_field": (b"a 0\nb\n", TokenError, "units.txt:2: expected 'token id', found 'b'"),
    "three_fields": (b"a b 0\n", TokenError, "units.txt:1: expected 'token id', found 'a b 0'"),
    "negative": (b"a -1\n", TokenError, "units.txt:1: expected an integer id of 0 or more, found '-1'"),
    "superscript": ("a ²\n".encode(), TokenError, "units.txt:1: expected an integer id of 0 or more, found '²'"),
    "latin_1": (b"a 0\n\xe9 1\n", TokenError, "units.txt:2: expected UTF-8"),
    "size": (b"a 0\nb 1\n", CheckpointError, "train.yaml says output_dim 12, the units file has 2 entries"),
}


@pytest.mark.parametrize(("data", "kind", "text"), WRONG_UNITS.values(), ids=WRONG_UNITS)
def test_wrong_units(experiment: Path, data: bytes, kind: type[EdgeError], text: str) -> None:
    (experiment / "units.txt").write_bytes(data)
    assert text in refusal(experiment, kind)


WRONG_CMVN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "IndexError"),
    "bins": (
        b'{"mean_stat": [1], "var_stat": [1], "frame_num": 1}',
        "expected 20 sums and 20 square sums, found 1 and 1",
    ),
    "key": (b'{"mean_stat": [1]}', "KeyError 'var_stat'"),
    "frames": (json.dumps({"mean_stat": [1] * MEL, "var_stat": [1] * MEL, "frame_num": 0}).encode(), "found 0"),
    "nan": (
        json.dumps({"mean_stat": [float("nan")] * MEL, "var_stat": [1] * MEL, "frame_num": 1}).encode(),
        "found NaN",
    ),
    "huge": (json.dumps({"mean_stat": [10**400] * MEL, "var_stat": [1] * MEL, "frame_num": 3}).encode(), "too large"),
    "words": (b"[ many words ]", "could not convert string to float: 'many'"),
    "binary": (b"\0BDM \4", "Kaldi's binary format: write it with compute-cmvn-stats --binary=false"),
    "nesting": (b'{"a":' * 100_000, "maximum recursion depth exceeded"),
}


@pytest.mark.parametrize(("data", "text"), WRONG_CMVN.values(), ids=WRONG_CMVN)
def test_wrong_cmvn(experiment: Path, data: bytes, text: str) -> None:
    edit_state(experiment, lambda s: [s.pop(key) for key in CMVN])
    (experiment / "global_cmvn").write_bytes(data)
    message = refusal(experiment, CheckpointError)
    assert "global_cmvn: not CMVN statistics of WeNet (JSON) or Kaldi (text): " in message and text in message


def test_missing_files(experiment: Path, tmp_path: Path) -> None:
    edit_state(experiment, lambda s: [s.pop(key) for key in CMVN])
    for name, text in (
        ("global_cmvn", "expected CMVN statistics in the checkpoint or in global_cmvn, found none"),
        ("units.txt", "expected a units file (units.txt, tokens.txt, lang_char.txt, words.txt, dict.txt), found none"),
        ("train.yaml", "expected train.yaml beside final.pt, found none; copy it from the WeNet experiment"),
        ("final.pt", "expected one of final.pt, final.safetensors, model.safetensors, model.pt, found none"),
    ):
        (experiment / name).unlink()
        assert text in refusal(experiment, CheckpointError)
    shutil.rmtree(experiment)
    assert "no such file or directory; expected a WeNet experiment directory" in refusal(experiment, CheckpointError)


def test_experiments_of_other_sizes(tmp_path: Path) -> None:
    """The smallest there are: two tokens, one block, one expert, no right-to-left layers, an odd dimension."""
    data = train_yaml(
        encoder_conf={"output_size": 15, "attention_heads": 5, "num_blocks": 1, "n_expert": 1, "n_expert_activated": 1},
        decoder_conf={"attention_heads": 3, "r_num_blocks": 0},
        output_dim=2,
        tokenizer_conf={"special_tokens": {"<sos>": 1, "<eos>": 1}},
    )
    model = load_experiment(write_experiment(tmp_path / "small", data)).build()
    with torch.inference_mode():
        out, _ = model.encoder(features(7), torch.tensor([7]))
        score, r_score = model.forward_attention_decoder(torch.tensor([[1, 0]]), torch.tensor([2]), out)
    assert out.shape == (1, 1, 15) and score.shape == r_score.shape == (1, 2, 2)
    torch.testing.assert_close(score.exp().sum(-1), torch.ones(1, 2))
