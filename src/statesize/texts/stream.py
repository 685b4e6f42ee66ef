"""Text that comes piece by piece, as tokens that do not change any more."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from statesize.texts.rows import BLANK_LINES
from statesize.texts.tokens import AnyTokenizer, beginning_id, plain_ids, special_ids, token_text

_FIRST_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
# The last word may go on, and white space may turn out to be the end of a document.
_UNFINISHED = re.compile(r"\s+\S*\Z")
# Letters without white space, as of Chinese, after which a word is not waited for, and how many are held back then.
_LONGEST_WORD, _HELD_BACK = 256, 32
# Letters of a document from which on it is cut, so that it is not encoded from its beginning each time.
_LONGEST_PART = 4096


@dataclass(eq=False)
class TextStream:
    """Text on its way to a model, cut into tokens as `join_documents` does; blank lines part documents.

    Attributes:
        special_tokens: Read special tokens that the text spells as such, and add no end-of-sequence token.
        _text: What has come of the open document since it was cut.
        _given: How many of its tokens were yielded.
    """

    # A token is yielded once white space has followed its word, so that no later text changes it. Where the tokenizer
    # has no end-of-sequence token, or the text says by special tokens where documents end, blank lines are text.

    tokenizer: AnyTokenizer
    special_tokens: bool = False
    _end: list[int] = field(init=False)
    _beginning: list[int] = field(init=False)
    _special: tuple[str, ...] = field(default=(), init=False)
    _text: str = field(default="", init=False)
    _given: int = field(default=0, init=False)
    _cut: bool = field(default=False, init=False)
    _first: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        end, beginning = special_ids(self.tokenizer)[1].get("eos"), beginning_id(self.tokenizer)
        self._end = [] if end is None or self.special_tokens else [end]
        self._beginning = [] if beginning is None else [beginning]
        if self.special_tokens:
            self._special = tuple(token_text(self.tokenizer, token) for token in special_ids(self.tokenizer)[0])

    def feed(self, text: str) -> list[int]:
        """Takes more text, with line feeds as line ends; the tokens that became certain."""
        self._text += text
        ids = self._documents()
        unfinished = _UNFINISHED.search(self._text)
        known = unfinished.start() if unfinished else 0
        if len(self._text) - known > _LONGEST_WORD:
            known = len(self._text) - _HELD_BACK
        while (outside := self._outside_special_tokens(known)) < known:
            unfinished = _UNFINISHED.search(self._text[:outside])
            known = unfinished.start() if unfinished else 0
        ids += self._new(self._text[:known])
        if known > _LONGEST_PART:
            self._text, self._given, self._cut = self._text[known:], 0, True
        return self._begun(ids)

    def end(self) -> list[int]:
        """Ends the text; the tokens that were not yielded, with the one that ends the last document."""
        return self._begun([*self._documents(), *self._finished(self._text)])

    def _documents(self) -> list[int]:
        """What is new of the documents that a blank line has ended; the text is what follows."""
        if not self._end:
            return []
        if not self._first and not self._cut:
            self._text = _FIRST_BLANK_LINES.sub("", self._text)
        *whole, self._text = BLANK_LINES.split(self._text)
        ids: list[int] = []
        for document in whole:
            ids += self._finished(document)
            self._given, self._cut, self._first = 0, False, False
        return ids

    def _finished(self, document: str) -> list[int]:
        document = document.rstrip("\n") if self._end else document
        return self._new(document) + self._end if document.strip() or self._given or self._cut else []

    def _new(self, document: str) -> list[int]:
        """The tokens of the open document, as far as it is known, that were not yielded."""
        document = document.lstrip("\n") if self._end and not self._cut else document
        ids = plain_ids(self.tokenizer, document, self.special_tokens) if document.strip() or self._cut else []
        new, self._given = ids[self._given :], max(self._given, len(ids))
        return new

    def _outside_special_tokens(self, offset: int) -> int:
        """An offset at or before another that cuts no special token of the text."""
        starts = (
            start
            for text in self._special
            for start in range(max(offset - len(text) + 1, 0), offset)
            if self._text.startswith(text, start) or text.startswith(self._text[start:])
        )
        return min(starts, default=offset)

    def _begun(self, ids: list[int]) -> list[int]:
        if ids:
            begins = self.special_tokens and ids[:1] == self._beginning
            ids, self._beginning = ids if begins else self._beginning + ids, []
        return ids
