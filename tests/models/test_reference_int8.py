"""models/reference-int8: what it was made from, that it computes in integers, and what it costs."""

from __future__ import annotations

from pathlib import Path

import jiwer
import pytest
from places import ROOT

from calibration.corpus import Utterance, read_corpus
from calibration.profile import Profile
from edge.model.checkpoint import load_experiment
from edge.runtime import DecodeOptions, Recognizer
from edge.runtime.bundle import Bundle, sha256
from edge.runtime.engines.config import EngineConfig
from quant.kernels import count_kernels
from quant.measure.agreement import measure_agreement
from quant.measure.wer.compare import compare
from quant.measure.wer.measure import choose_modes, measure_wer
from quant.precision.scales import make_plan
from recipes.reference.devset import digit_strings, write

MODEL, FP32, INT8 = (ROOT / "models" / name for name in ("reference", "reference-bundle", "reference-int8"))
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module")
def samples() -> list[Utterance]:
    return read_corpus(MODEL / "samples")


def test_made_from_the_checkpoint_and_the_profile_beside_it() -> None:
    manifest = Bundle.open(INT8).manifest
    assert manifest.source.sha256 == sha256(MODEL / "final.pt")
    assert manifest.calibration["profile"]["sha256"] == sha256(MODEL / "calibration.profile")
    profile = Profile.load(MODEL / "calibration.profile")
    profile.check_checkpoint(manifest.source.sha256, "models/reference")
    assert set(manifest.calibration["coverage"]["uncovered"]) == profile.uncovered()


def test_every_layer_but_those_kept_is_an_integer_kernel_with_a_scale_of_its_own() -> None:
    kernels = count_kernels(Bundle.open(INT8))
    kept = 2 * 5 + 2 * 2  # two attentions and two convolutions, which the tuner chose (docs/quantization.md)
    assert kernels["encoder"]["Gemm"] == kept and kernels["decoder"].get("Gemm", 0) == 0
    # Per block: four attention projections and one of positions, two pointwise convolutions, 2 x 8 experts of two
    # layers; then embed.out, CTC, and the second subsampling convolution.
    assert kernels["encoder"]["QGemm"] == 6 * (5 + 2 + 2 * 8 * 2) + 2 - kept and kernels["encoder"]["QLinearConv"] == 1
    plan = make_plan(load_experiment(MODEL), Profile.load(MODEL / "calibration.profile"))
    scales = [layer.input for path, layer in plan.layers.items() if path.endswith(".w_2")]
    assert all(scale is not None and (scale.scale, scale.zero_point) != (1.0, 0) for scale in scales)
    assert len({scale.scale for scale in scales if scale}) > 0.9 * len(scales)


def test_size(tmp_path: Path) -> None:
    parameters = load_experiment(MODEL).parameters()
    assert sum(path.stat().st_size for path in INT8.iterdir()) <= 0.30 * 4 * parameters


def test_bundled_recordings_are_understood_and_routed_alike(samples: list[Utterance]) -> None:
    recognizer = Recognizer.load(INT8, EngineConfig(threads=2))
    for options in (DecodeOptions(), DecodeOptions(reencode=False), DecodeOptions(full_context=True)):
        texts = [" ".join(r.text for r in recognizer.transcribe(u.audio, options=options)) for u in samples]
        assert jiwer.wer([u.text for u in samples], texts) <= 0.05
    assert measure_agreement(FP32, INT8, samples, threads=2).worst >= 0.97


def test_human_digits_lose_at_most_one_word_in_any_mode(tmp_path: Path) -> None:
    """0.2 points of 594 words is one word."""
    corpus = SHARED / "speech" / "digits-human"
    if not corpus.is_dir():
        pytest.skip(f"{corpus} is absent: human recordings are not part of the repository")
    write(digit_strings(corpus), tmp_path / "dev")
    spoken = read_corpus(tmp_path / "dev", need_text=True)
    measured = {}
    for name in (FP32, INT8):
        recognizer = Recognizer.load(name, EngineConfig(threads=2))
        measured[name] = measure_wer(recognizer, spoken, choose_modes([recognizer.manifest]))
    for mode in compare(spoken, measured[INT8], measured[FP32]):
        assert mode.difference is not None and mode.difference.points is not None
        assert mode.difference.points <= 0.2, mode.key
