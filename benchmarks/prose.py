"""The prose of the running CPython as records have read it: documents held out, a tokenizer, and four sequences.

It differs between versions of Python; the records are of 3.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tokenizers import Tokenizer
from torch import Tensor

from statesize.lab.tasks.corpus import python_prose
from statesize.lab.tasks.text import train_tokenizer
from statesize.texts.tokens import AnyTokenizer, join_documents

_SEQUENCES, _LENGTH = 4, 256


@cache
def held_out() -> tuple[str, ...]:
    """Documents of which no model that was trained on the others has seen any."""
    return python_prose().held_out


def tokenizer() -> Tokenizer:
    """The tokenizer of what is trained on this prose, a new one at every call."""
    return Tokenizer.from_str(_written())


def held_out_sequences(given: AnyTokenizer) -> list[Tensor]:
    """Groups of short documents as four sequences of at most 256 tokens, that of the plainest sentences first."""
    own = tokenizer()
    sized = [(document, len(own.encode(document).ids) + 1) for document in held_out()]
    short = [(document, length) for document, length in sized if length <= _LENGTH // 2]
    step = len(short) // _SEQUENCES
    groups = [tuple(_enough(short[row * step : (row + 1) * step])) for row in range(_SEQUENCES)]
    return [join_documents(given, group)[:_LENGTH] for group in sorted(groups, key=_share_of_signs)]


@cache
def _written() -> str:
    return train_tokenizer(python_prose().train).to_str()


def _share_of_signs(documents: tuple[str, ...]) -> float:
    text = "".join(documents)
    return sum(not (sign.isalpha() or sign.isspace() or sign in ".,;") for sign in text) / len(text)


def _enough(documents: list[tuple[str, int]]) -> Iterator[str]:
    tokens = 0
    for document, length in documents:
        if tokens < _LENGTH:
            yield document
        tokens += length
