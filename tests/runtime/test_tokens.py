from __future__ import annotations

import itertools

import pytest
from runtime_helpers import wenet

from edge.runtime import Token, TokenError
from edge.runtime.timestamps import token_spans
from edge.runtime.tokens import SymbolTable


def table(*symbols: str) -> SymbolTable:
    return SymbolTable(symbols)


def timed(ids: list[int], confidences: list[float] | None = None) -> list[Token]:
    return [
        Token(index, "", 100.0 * place, 100.0 * place + 60, (confidences or [1.0] * len(ids))[place])
        for place, index in enumerate(ids)
    ]


def test_reads_wenet_units() -> None:
    tokens = SymbolTable.load(wenet("moe_u2pp") / "units.txt")
    assert len(tokens) == 31
    assert tokens.symbols[:4] == ("<blank>", "<unk>", "<sos/eos>", "a")
    assert tokens.text([10, 7, 14, 14, 17, 30, 25, 17, 20, 14, 6]) == "hello world"


def test_ids_may_come_in_any_order_and_crlf_and_bom_are_harmless() -> None:
    tokens = SymbolTable.parse(b"\xef\xbb\xbfb 1\r\na 0\r\n\r\n\xe2\x96\x81c\t2\r\n")
    assert tokens.symbols == ("a", "b", "▁c")


def test_line_separators_can_be_tokens() -> None:
    tokens = SymbolTable.parse("a 0\n\u2028 1\n\u0085 2\n\u3000 3\n".encode())
    assert tokens.symbols == ("a", "\u2028", "\u0085", "\u3000")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a 0\nb 0\n", r"units:2: duplicate id 0: 'b' here, 'a' on line 1"),
        (b"a 0\nb 2\n", r"units:2: .*id 1 is missing"),
        (b"a 1\nb 2\n", r"units:1: .*id 0 is missing"),
        (b"a 0\nb one\n", r"units:2: expected an integer id of 0 or more, found 'one'"),
        (b"a 0\nb -1\n", r"units:2: expected an integer id of 0 or more, found '-1'"),
        (b"a 0\nb\n", r"units:2: expected 'token id', found 'b'"),
        (b"a 0\nb c 1\n", r"units:2: expected 'token id', found 'b c 1'"),
        (b"a 0\n\xff\xfe 1\n", r"units:2: expected UTF-8, found byte 0xff"),
        (b"", r"units: .*found an empty file"),
    ],
)
def test_bad_tables_name_the_line(data: bytes, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        SymbolTable.parse(data, "units")


def test_missing_file_and_bad_id() -> None:
    with pytest.raises(TokenError, match=r"nowhere\.txt.*No such file"):
        SymbolTable.load("nowhere.txt")
    for bad in (-1, 2):
        with pytest.raises(TokenError, match=rf"0\.\.1, found {bad}"):
            table("a", "b").text([bad])


def test_text_of_bpe_pieces_and_special_tokens() -> None:
    tokens = table("<blank>", "<unk>", "<sos/eos>", "▁HE", "LLO", "▁", "▁WORLD", "<space>", "<|en|>", "'S")
    assert tokens.text([3, 4, 6, 9]) == "HELLO WORLD'S"
    assert tokens.text([2, 8, 3, 4, 0, 5, 7, 5, 6, 2]) == "HELLO WORLD"
    assert tokens.text([3, 5, 1]) == "HE <unk>", "an unknown word is shown, not hidden"
    assert tokens.text([]) == tokens.text([5, 2]) == ""


def test_chinese_joins_without_spaces_beside_english() -> None:
    tokens = table("今", "天", "▁", "▁good", "▁day", "。", "▁的")
    assert tokens.text([0, 1, 2, 0, 5]) == "今天今。"
    assert tokens.text([0, 1, 3, 4, 6, 0]) == "今天 good day 的今"
    words = tokens.words(timed([0, 1, 3, 4, 6, 0]))
    assert [w.text for w in words] == ["今", "天", "good", "day", "的", "今"]


def test_byte_tokens_join_to_characters() -> None:
    tokens = table("▁caf", "<0xC3>", "<0xA9>", "▁x", "<blank>")
    assert tokens.text([0, 1, 4, 2, 3]) == "café x"
    assert tokens.text([0, 1, 3]) == "caf\ufffd x", "half a character is shown as broken, not an error"
    assert [w.text for w in tokens.words(timed([0, 1, 2, 3]))] == ["café", "x"]


@pytest.mark.parametrize("ids", [[3, 4, 6, 9], [5, 3, 5, 4, 2, 6], [4, 6, 1, 7, 6], [6]])
def test_words_cover_the_text_with_times_and_mean_confidence(ids: list[int]) -> None:
    tokens = table("<blank>", "<unk>", "<sos/eos>", "▁HE", "LLO", "▁", "▁WORLD", "<space>", "<|en|>", "'S")
    confidences = [0.1 * (place + 1) for place in range(len(ids))]
    words = tokens.words(timed(ids, confidences))
    assert " ".join(w.text for w in words) == tokens.text(ids)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(words))
    if ids == [3, 4, 6, 9]:
        assert (words[0].start_ms, words[0].end_ms) == (0.0, 160.0)
        assert (words[1].start_ms, words[1].end_ms) == (200.0, 360.0)
        assert words[0].confidence == pytest.approx(0.15) and words[1].confidence == pytest.approx(0.35)


def test_spans_by_hand() -> None:
    # 40 ms frames: far apart, 100 ms before the frame; 2 frames apart, the border is the frame between.
    assert token_spans([5, 20], 40.0) == [(100.0, 200.0), (700.0, 800.0)]
    assert token_spans([5, 7], 40.0) == [(100.0, 240.0), (240.0, 280.0)]
    assert token_spans([5, 6], 40.0) == [(100.0, 200.0), (200.0, 240.0)]
    assert token_spans([0], 40.0) == [(0.0, 0.0)]
    assert token_spans([1], 40.0) == [(0.0, 40.0)], "never before the utterance"
    assert token_spans([], 40.0) == []
