"""WER, CER and MER against sclite's rules restated here, and jiwer on text that was cut into tokens by hand."""

from __future__ import annotations

import random
from pathlib import Path

import jiwer
import pytest

from quant.measure.wer.score import align, rate
from quant.measure.wer.scoring import Scoring, ScoringError, choose_scoring, punctuation_hint

HAN = "我们在北京大学学习语音识别技术今天天气很好明天可能会下雨请打开客厅的灯谢谢你再见"
LATIN = "hello world speech model open the window please turn on light okay good morning deep learning".split()  # noqa: SIM905


def errors(spoken: list[str], written: list[str]) -> int:
    """Levenshtein's distance of two lists, by the recursion in his paper."""
    row = list(range(len(written) + 1))
    for i, a in enumerate(spoken, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(written, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def made_sentences() -> list[tuple[list[str], list[str]]]:
    """50 pairs of tokens: Mandarin, English, mixed; what was recognised has random errors."""
    choose = random.Random(0)
    found = []
    for number in range(50):
        kind = ("mandarin", "english", "mixed")[number % 3]
        pool = {"mandarin": list(HAN), "english": LATIN, "mixed": [*HAN, *LATIN]}[kind]
        spoken = [choose.choice(pool) for _ in range(choose.randint(3, 15))]
        written: list[str] = []
        for token in spoken:
            luck = choose.random()
            if luck < 0.1:
                continue
            written.append(choose.choice(pool) if luck < 0.25 else token)
            if luck > 0.93:
                written.append(choose.choice(pool))
        found.append((spoken, written))
    return found


def as_people_write(tokens: list[str], choose: random.Random, spaced: bool) -> str:
    """Latin words apart, capitals and full-width letters here and there; Han close together, or spaced as AISHELL's
    transcripts are."""
    text = ""
    for token in tokens:
        latin = token.isascii()
        if latin and choose.random() < 0.3:
            token = token.upper()
        if latin and choose.random() < 0.3:
            token = "".join(chr(ord(c) + 0xFEE0) for c in token)
        glued = text and not latin and not text[-1].isascii() and not ("\uff21" <= text[-1] <= "\uff5a")
        text += ("" if not text or (glued and not (spaced and choose.random() < 0.4)) else " ") + token
    return text


def test_fifty_sentences() -> None:
    """MER: counts of jiwer on the tokens, and of the recursion; the text was joined and spaced at random."""
    choose = random.Random(1)
    pairs = made_sentences()
    references = [as_people_write(spoken, choose, True) for spoken, _ in pairs]
    texts = [as_people_write(written, choose, False) for _, written in pairs]
    scoring = choose_scoring(references)
    assert scoring.rate == "mer"
    found = align(references, texts, scoring)
    for (spoken, written), one in zip(pairs, found):
        assert one.words == len(spoken) and one.errors == errors(spoken, written), (spoken, written)
    total = rate(found)
    want = jiwer.wer([" ".join(spoken) for spoken, _ in pairs], [" ".join(written) for _, written in pairs])
    assert total.wer == pytest.approx(100 * want) and 10 < total.wer < 60


def test_characters() -> None:
    """CER counts every character but spaces: jiwer's, on text whose spaces are gone."""
    pairs = made_sentences()
    references, texts = (["".join(" ".join(p[i]).split()) for p in pairs] for i in (0, 1))
    found = rate(align([" ".join(s) for s, _ in pairs], [" ".join(w) for _, w in pairs], Scoring("cer")))
    assert found.wer == pytest.approx(100 * jiwer.cer(references, texts))
    assert found.words == sum(map(len, references))


def test_a_perfect_mandarin_result_has_no_errors() -> None:
    """AISHELL writes spaces between words; a recognizer writes none."""
    spoken, written = "而 对 楼市 成交 抑制 作用 最大 的 限购", "而对楼市成交抑制作用最大的限购"
    found = rate(align([spoken], [written], choose_scoring([spoken])))
    assert (found.wer, found.cer, found.words) == (0.0, 0.0, 15)
    assert rate(align([spoken], [written])).wer == 100.0  # what counting words between spaces says


def test_the_rate_follows_the_script() -> None:
    for text, wanted in (
        ("one two", "wer"),
        ("今天 天气", "mer"),
        ("ありがとう", "mer"),
        ("open 微信", "mer"),
        ("안녕하세요 여러분", "wer"),
        ("สวัสดีครับ", "cer"),
        ("", "wer"),
    ):
        assert choose_scoring(["", text]).rate == wanted, text
    assert choose_scoring(["今天"], "wer").rate == "wer"
    with pytest.raises(ScoringError, match="expected wer, cer or mer"):
        Scoring("ser")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rate_name", "punctuation", "tokens"),
    [
        ("Hello，World", "mer", "keep", ["hello,world"]),
        ("ＡＢＣ　１２３", "wer", "keep", ["abc", "123"]),
        ("你好，世界。", "mer", "drop", ["你", "好", "世", "界"]),
        ("你好，世界。", "mer", "keep", ["你", "好", ",", "世", "界", "。"]),
        ("It’s five-thirty, isn't it?", "wer", "drop", ["it's", "five", "thirty", "isn't", "it"]),
        ("don't 'stop'", "wer", "drop", ["don't", "stop"]),
        ("use GPT4 模型 now", "mer", "keep", ["use", "gpt4", "模", "型", "now"]),
        ("iPhone手机", "mer", "keep", ["iphone", "手", "机"]),
        ("ab c", "cer", "keep", ["a", "b", "c"]),
        ("ab, c.", "cer", "drop", ["a", "b", "c"]),
        ("カタカナ と ひらがな", "mer", "keep", list("カタカナとひらがな")),
        ("𠮷野家", "mer", "keep", ["𠮷", "野", "家"]),
    ],
)
def test_tokens(text: str, rate_name: str, punctuation: str, tokens: list[str]) -> None:
    found = Scoring(rate_name, punctuation).tokens(text)  # type: ignore[arg-type]
    assert found == tokens


def test_punctuation_that_only_the_references_have() -> None:
    assert "(。 ，)" in punctuation_hint(["你好，世界。"], ["你好世界"]).replace(", ", "，")
    assert punctuation_hint(["你好，世界。"], ["你好，世界"]) == ""
    assert punctuation_hint(["it's five-thirty"], ["its"]) == ""


@pytest.fixture(scope="module")
def mandarin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A tiny model whose tokens are Han characters, and a corpus of noise with what it hears as transcripts, written
    with spaces."""
    import json

    import numpy as np
    import soundfile
    from model_helpers import train_yaml, write_experiment

    from edge.export.convert import convert
    from edge.runtime import DecodeOptions, Recognizer

    folder = tmp_path_factory.mktemp("mandarin")
    experiment = write_experiment(folder / "exp", train_yaml())
    tokens = ["<blank>", "<unk>", "<sos/eos>", *"我们在北京大学习"]
    tokens += ["语"]
    units = "".join(f"{token} {i}\n" for i, token in enumerate(tokens))
    (experiment / "units.txt").write_text(units, encoding="utf-8")
    bundle = convert(experiment, folder / "bundle").directory
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a.wav", rng.normal(0, 0.1, 24000), 16000)
    options = DecodeOptions(chunk_ms=640, rescoring=False)
    (result,) = Recognizer.load(bundle).transcribe(folder / "a.wav", options=options)
    row = {"audio": "a.wav", "text": " ".join(result.text)}
    (folder / "manifest.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return bundle, folder / "manifest.jsonl", result.text


def test_the_command_scores_mandarin(mandarin: tuple[Path, Path, str], tmp_path: Path) -> None:
    import json

    from typer.testing import CliRunner

    from u2edge.cli import app

    bundle, manifest, text = mandarin
    assert len(text) > 1
    out = tmp_path / "wer.json"
    command = ["wer", "-b", str(bundle), "-d", str(manifest), "--mode", "streaming", "--rescoring", "off"]
    done = CliRunner().invoke(app, [*command, "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "MER %" in done.output and "CJK characters are tokens of their own" in " ".join(done.output.split())
    data = json.loads(out.read_text())
    found = data["modes"][0]["bundle"]
    assert (data["rate"], found["wer"], found["words"]) == ("mer", 0.0, len(text))
    done = CliRunner().invoke(app, [*command, "--rate", "wer", "--json", str(out)])
    assert done.exit_code == 0 and json.loads(out.read_text())["modes"][0]["bundle"]["wer"] == 100.0
