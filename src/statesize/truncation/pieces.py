"""From texts to pieces of one length, each with the number of its text; and two sets of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from statesize.errors import InputError
from statesize.measurement.settings import FEWEST_PIECES, LEAST_TOKENS
from statesize.texts.inputs import numbered_excerpts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer

Piece = tuple[int, Tensor]
"""The number of a text, and token ids of a piece of it, (L,)."""
# The share of the pieces by which curves are measured.
_CURVES = 1 / 3


def fitting_tokens(texts: Sequence[Tensor], length: int) -> int:
    """The length of pieces: as asked for where a text has it, else so many that half of the texts are read, or more."""
    lengths = sorted(map(len, texts))
    half = lengths[len(lengths) // 2]
    return length if lengths[-1] >= length or half < LEAST_TOKENS else half


def pieces_of(texts: Sequence[Tensor], length: int, most: int, tokenizer: AnyTokenizer | None) -> list[Piece]:
    """Pieces of texts, of so many tokens."""
    same = _numbers(texts)
    pieces = [(same[number], piece) for number, piece in numbered_excerpts(texts, length, most, tokenizer)]
    if not pieces:
        longest = max(map(len, texts))
        fewer = f", or --max-tokens {longest} (tokens={longest})" if longest >= LEAST_TOKENS else ""
        raise InputError(
            f"inputs must have a text of {length if fewer else LEAST_TOKENS} tokens, got {longest} in the longest. "
            f"Give longer texts{fewer}."
        )
    return pieces


def _numbers(texts: Sequence[Tensor]) -> list[int]:
    """A number for each text; the same text given several times is one unit."""
    first = dict[bytes, int]()
    return [first.setdefault(one.cpu().numpy().tobytes(), number) for number, one in enumerate(texts)]


def two_sets(
    texts: Sequence[Tensor], length: int, most: int, tokenizer: AnyTokenizer | None
) -> tuple[list[Piece], list[Piece]]:
    """Pieces of texts for curves, and held out; neighbours lie in one set."""
    curves, held_out = list[Piece](), list[Piece]()
    # A text that is given several times would lie in both sets.
    for number in dict.fromkeys(_numbers(texts)):
        every = numbered_excerpts([texts[number]], length, len(texts[number]), tokenizer)
        own = [(number, piece) for _, piece in every]
        if len(own) >= FEWEST_PIECES:
            border = round(_CURVES * len(own))
            curves += own[:border]
            held_out += own[border:]
        else:
            # A short text is not parted: it goes where most is missing.
            (curves if len(curves) / _CURVES <= len(held_out) / (1 - _CURVES) else held_out).extend(own)
    if not curves or not held_out:
        raise InputError(
            f"inputs must have one text of {FEWEST_PIECES * length} tokens, which is cut into {FEWEST_PIECES} pieces, "
            f"or 2 different texts of {length}, for curves and for prices, got {len(curves) + len(held_out)} pieces of "
            f"{length}. Give more text, or fewer tokens (--max-tokens)."
        )
    share = round(_CURVES * most)
    return evenly(curves, max(1, share)), evenly(held_out, max(1, most - share))
