"""The token table: ids to text and words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.runtime.errors import TokenError
from edge.runtime.joining import JOININGS, piece
from edge.runtime.result import Token, Word

# Scripts written without spaces: kana, Han (with its extensions and compatibility forms), full-width punctuation.
_CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_CJK_FIRST, _CJK_LAST = re.compile(f"[{_CJK}]"), re.compile(f"[{_CJK}]$")
_CJK_GAP = re.compile(f"(?<=[{_CJK}]) +(?=[{_CJK}])")


class SymbolTable:
    """Tokens by id, as WeNet's ``units.txt`` lists them.

    Text is made as WeNet's tokenizers and post-processor make it: ``▁`` and ``<space>`` are spaces, Chinese and
    Japanese characters join without spaces, special tokens are dropped. ``<unk>`` stays visible, since hiding
    it would turn an unknown word into a missing one.

    Args:
        symbols: index = id.
        joining: how they join (``edge.runtime.joining``).

    Raises:
        TokenError: a joining that is not known here.
    """

    def __init__(self, symbols: Sequence[str], joining: str = "pieces") -> None:
        if joining not in JOININGS:
            raise TokenError(
                f"manifest.tokens.joining: expected one of {', '.join(JOININGS)}, found {joining!r}; "
                "update u2edge: pip install --upgrade u2edge"
            )
        self.symbols, self.joining = tuple(symbols), joining
        self._pieces = tuple(piece(symbol, joining) for symbol in self.symbols)

    def joined(self, joining: str) -> SymbolTable:
        """The same tokens, joined otherwise."""
        return self if joining == self.joining else SymbolTable(self.symbols, joining)

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def load(cls, path: Path | str) -> SymbolTable:
        """Read ``token id`` per line, UTF-8, ids 0..n-1 in any order.

        Raises:
            TokenError: naming the file and line: not UTF-8, not two fields, id not an integer, duplicate or gap.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TokenError(f"{path}: expected a token table, cannot read it: {error.strerror}") from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, name: str = "tokens.txt") -> SymbolTable:
        """As :meth:`load`, from the bytes of a file called ``name`` in errors."""
        found: dict[int, tuple[str, int]] = {}
        # Not splitlines(): U+2028 and U+0085 can be tokens.
        for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            where = f"{name}:{number}"
            try:
                line = raw.decode("utf-8").strip(" \t\r")
            except UnicodeDecodeError as error:
                raise TokenError(
                    f"{where}: expected UTF-8, found byte 0x{raw[error.start]:02x} in {raw[:60]!r}"
                ) from None
            if not line:
                continue
            fields = re.split("[ \t]+", line)
            if len(fields) != 2:
                raise TokenError(
                    f"{where}: expected 'token id', found {line[:60]!r}; use the units.txt of the training run"
                )
            symbol, number_text = fields
            if not re.fullmatch("[0-9]{1,9}", number_text):
                raise TokenError(f"{where}: expected an integer id of 0 or more, found {number_text[:60]!r}")
            index = int(number_text)
            if index in found:
                before, line_before = found[index]
                raise TokenError(
                    f"{where}: duplicate id {index}: {symbol[:60]!r} here, {before[:60]!r} on line {line_before}"
                )
            found[index] = (symbol, number)
        if not found:
            raise TokenError(f"{name}: expected one 'token id' per line, found an empty file")
        for index in range(len(found)):
            if index not in found:
                after = min(i for i in found if i > index)
                raise TokenError(
                    f"{name}:{found[after][1]}: expected ids 0..{len(found) - 1} without a gap, id {index} is missing"
                )
        return cls([found[index][0] for index in range(len(found))])

    def text(self, ids: Iterable[int]) -> str:
        """The transcript of ``ids``: single spaces between words, none at the ends."""
        parts: list[str] = []
        pending = bytearray()
        for index in ids:
            added = self._pieces[self._check(index)]
            if isinstance(added, bytes):
                pending += added
                continue
            if pending and added:
                parts.append(pending.decode("utf-8", "replace"))
                pending.clear()
            parts.append(added)
        parts.append(pending.decode("utf-8", "replace"))
        return _CJK_GAP.sub("", re.sub(" +", " ", "".join(parts))).strip(" ")

    def words(self, tokens: Sequence[Token]) -> tuple[Word, ...]:
        """Group ``tokens`` into words; a piece of Chinese or Japanese script is a word of its own."""
        groups: list[list[Token]] = []
        boundary, last = True, ""
        for token in tokens:
            added = self._pieces[self._check(token.id)]
            if added == "":
                continue
            if added in (" ", b" "):
                boundary = True
                continue
            shown = added if isinstance(added, str) else " " if added.startswith(b" ") else ""
            cjk = bool(shown and last) and bool(_CJK_LAST.search(last) or _CJK_FIRST.match(shown))
            if boundary or shown.startswith(" ") or cjk:
                groups.append([])
            groups[-1].append(token)
            boundary, last = shown.endswith(" "), shown
        words = []
        for group in groups:
            confidence = sum(token.confidence for token in group) / len(group)
            text = self.text(token.id for token in group)
            words.append(Word(text, group[0].start_ms, group[-1].end_ms, confidence))
        return tuple(words)

    def _check(self, index: int) -> int:
        if not 0 <= index < len(self.symbols):
            raise TokenError(f"expected a token id in 0..{len(self.symbols) - 1}, found {index}")
        return index
