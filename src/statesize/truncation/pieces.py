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
    """Pieces of every third text for curves, and of the others held out; the first third of a single text."""
    # A text that is given several times would lie in both sets.
    once = [texts[number] for number in dict.fromkeys(_numbers(texts))]
    pieces = numbered_excerpts(once, length, sum(map(len, once)), tokenizer)
    numbers = list(dict.fromkeys(number for number, _ in pieces))
    if len(numbers) < 2 and len(pieces) < FEWEST_PIECES:
        raise InputError(
            f"inputs must have one text of {FEWEST_PIECES * length} tokens, which is cut into {FEWEST_PIECES} pieces, "
            f"or 2 different texts of {length}, for curves and for prices, got {len(pieces)} pieces of {length}. Give "
            "more text, or fewer tokens (--max-tokens)."
        )
    border = round(_CURVES * len(pieces))
    curves = pieces[:border] if len(numbers) == 1 else [one for one in pieces if one[0] in numbers[::3]]
    held_out = pieces[border:] if len(numbers) == 1 else [one for one in pieces if one[0] not in numbers[::3]]
    share = max(1, round(_CURVES * most))
    return evenly(curves, share), evenly(held_out, max(1, most - share))
