"""How an experiment's tokens become text; whether its dictionary and its train.yaml mean the same special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edge.model.config import ModelConfig
from edge.model.settings import section, show
from edge.runtime.joining import BYTES, SPECIAL, WORD_START
from edge.system.console import Say

_NAMES = {
    "blank": ("<blank>", "<blk>", "<eps>"),
    "sos": ("<sos/eos>", "<sos>", "<s>", "<sos_eos>"),
    "eos": ("<sos/eos>", "<eos>", "</s>", "<sos_eos>"),
}
_SETTING = {
    "blank": "ctc_conf.ctc_blank_id",
    "sos": "tokenizer_conf.special_tokens.<sos>",
    "eos": "tokenizer_conf.special_tokens.<eos>",
}
_CJK = re.compile("[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def check_special_tokens(config: ModelConfig, symbols: Sequence[str], units: str, say: Say) -> None:
    """Say where the dictionary and train.yaml (or WeNet's default, the last token for sos and eos) differ. train.yaml
    is followed: it is what WeNet built the model with."""
    told: set[tuple[int, int | None]] = set()
    for what, names in _NAMES.items():
        index = getattr(config, what)
        place = next((i for name in names for i, symbol in enumerate(symbols) if symbol == name), None)
        if symbols[index] in names or (place is None and SPECIAL.fullmatch(symbols[index])):
            continue
        if (index, place) in told:
            continue
        told.add((index, place))
        has = f"{units} has {symbols[place]} at {place}" if place is not None else f"{units} has no {names[0]}"
        say(
            f"train.yaml (or WeNet's default) says that token {index} is <{what}>, which is {symbols[index]!r} in "
            f"{units}; {has}. Kept is {index}; if the model was trained otherwise, write {_SETTING[what]} into "
            "train.yaml"
        )


def joining(data: dict[str, Any], symbols: Sequence[str], say: Say) -> str:
    """The name in ``edge.runtime.joining.JOININGS`` of how tokens join: as train.yaml says, else as the dictionary's
    marks say, else, for a dictionary of words, syllables or phones, with spaces."""
    ordinary = [symbol for symbol in symbols if not SPECIAL.fullmatch(symbol)]
    tokenizer = section(data, "tokenizer_conf")
    connect = tokenizer.get("connect_symbol")
    marked = sum(WORD_START in symbol and len(symbol) > 1 for symbol in ordinary)
    if marked > 1 or data.get("tokenizer") == "bpe":
        return "pieces"
    if connect in (" ", WORD_START):
        return "words"
    if connect:
        say(f"train.yaml: tokenizer_conf.connect_symbol: {show(connect)} is not supported; tokens join without it")
    if any(symbol.startswith("Ġ") for symbol in ordinary) and all(c in BYTES for s in ordinary for c in s):
        return "bytes"
    if any(symbol.endswith("@@") and len(symbol) > 2 for symbol in ordinary):
        return "@@"
    if any(symbol.startswith("##") and len(symbol) > 2 for symbol in ordinary):
        return "##"
    if connect == "" or any(WORD_START in symbol for symbol in ordinary) or "<space>" in symbols:
        return "pieces"
    if any(where.get("split_with_space") for where in (tokenizer, section(data, "dataset_conf"), data)):
        return "words"
    letters = [symbol for symbol in ordinary if not _CJK.search(symbol) and any(c.isalpha() for c in symbol)]
    if letters and 2 * sum(len(symbol) > 1 for symbol in letters) >= len(letters):
        say(
            "the dictionary is one of words, syllables or phones without a mark between words: they are joined with "
            'spaces; to join without, write tokenizer_conf.connect_symbol: "" into train.yaml'
        )
        return "words"
    return "pieces"
