"""How tokens become text, for every kind of unit that recognizers are trained on."""

from __future__ import annotations

import re
from collections.abc import Callable

WORD_START = "▁"  # U+2581, SentencePiece's mark of a word boundary
_SPACES = {WORD_START, "<space>"}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's byte fall-back
SPECIAL = re.compile(r"<[^<>]+>")  # <blank>, <sos/eos>, <|en|>, ...

Piece = str | bytes
"""What a token adds to a text: characters, or bytes that are characters only together with their neighbours."""


def _pieces(symbol: str) -> Piece:
    """SentencePiece and single characters: ``▁`` is a space, all else is joined."""
    return symbol.replace(WORD_START, " ")


def _words(symbol: str) -> Piece:
    """Words, syllables, phones: a space between any two."""
    return " " + symbol.replace(WORD_START, " ")


def _continued(symbol: str) -> Piece:
    """subword-nmt: ``hel@@ lo``; a token without ``@@`` ends its word."""
    return symbol.removesuffix("@@") if symbol.endswith("@@") else symbol + " "


def _wordpiece(symbol: str) -> Piece:
    """BERT: ``hel ##lo``; a token without ``##`` begins a word."""
    return symbol.removeprefix("##") if symbol.startswith("##") and len(symbol) > 2 else " " + symbol


def _byte_level(symbol: str) -> Piece:
    """GPT-2's byte-level units: every character stands for a byte."""
    if all(character in BYTES for character in symbol):
        return bytes(BYTES[character] for character in symbol)
    return symbol


JOININGS: dict[str, Callable[[str], Piece]] = {
    "pieces": _pieces,
    "words": _words,
    "@@": _continued,
    "##": _wordpiece,
    "bytes": _byte_level,
}
"""``manifest.tokens.joining`` -> what a token adds."""


def piece(symbol: str, joining: str) -> Piece:
    """What ``symbol`` adds to a text; special tokens add nothing, but ``<unk>`` stays visible."""
    if symbol in _SPACES:
        return " "
    if byte := _BYTE.fullmatch(symbol):
        return bytes([int(byte.group(1), 16)])
    if SPECIAL.fullmatch(symbol):
        return (" <unk> " if joining == "words" else symbol) if symbol == "<unk>" else ""
    return JOININGS[joining](symbol)


def _byte_characters() -> dict[str, int]:
    """GPT-2's table: printable bytes are themselves, the others are shifted beyond U+0100 in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTES = _byte_characters()
