"""From texts to pieces of one length, each with the number of its text; and two sets of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.measurement.settings import FEWEST_PIECES, LEAST_TOKENS
from statesize.texts.inputs import Arguments, Given, ids_of, numbered_excerpts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer

Piece = tuple[int, Given]
"""A piece with the number of its text."""
# The share of the pieces by which curves are measured.
_CURVES = 1 / 3


def fitting_tokens(texts: Sequence[Given], length: int) -> int:
    """The length of pieces: as asked for where a text has it, else so many that half of the texts are read, or more."""
    lengths = sorted(map(len, texts))
    half = lengths[len(lengths) // 2]
    return length if lengths[-1] >= length or half < LEAST_TOKENS else half


def pieces_of(texts: Sequence[Given], length: int, most: int, tokenizer: AnyTokenizer | None) -> list[Piece]:
    """Pieces of texts, of so many tokens; of what has other arguments, the beginning."""
    ids = [given for given in texts if isinstance(given, Tensor)]
    same = _numbers(ids)
    if any(ids_of(given) is None for given in texts):
        raise InputError(
            "inputs must hold token ids, of which the test compares the loss of the next, got frames. "
            "Measure these by statesize.profile or statesize.network_ess."
        )
    pieces: list[Piece] = [(same[number], piece) for number, piece in numbered_excerpts(ids, length, most, tokenizer)]
    others = [(len(ids) + number, given) for number, given in enumerate(texts) if isinstance(given, Arguments)]
    pieces += evenly([(number, one.beginning(length)) for number, one in others if len(one) >= length], most)
    if not pieces:
        longest = max(map(len, texts))
        fewer = f", or --max-tokens {longest} (tokens={longest})" if longest >= LEAST_TOKENS else ""
        raise InputError(
            f"inputs must have a text of {length if fewer else LEAST_TOKENS} tokens, got {longest} in the longest. "
            f"Give longer texts{fewer}."
        )
    return pieces[:most]


def _numbers(texts: Sequence[Tensor]) -> list[int]:
    """A number for each text; the same text given several times is one unit."""
    first = dict[bytes, int]()
    return [first.setdefault(one.cpu().numpy().tobytes(), number) for number, one in enumerate(texts)]


def two_sets(
    texts: Sequence[Tensor], length: int, most: int, tokenizer: AnyTokenizer | None
) -> tuple[list[Tensor], list[tuple[int, Tensor]]]:
    """Pieces of texts for curves, and held out, with the number of their text; neighbours lie in one set."""
    curves, held_out = list[tuple[int, Tensor]](), list[tuple[int, Tensor]]()
    numbers = _numbers(texts)
    # A text that is given several times would lie in both sets.
    for number in dict.fromkeys(numbers):
        text = texts[number]
        pieces = numbered_excerpts([text], length, len(text), tokenizer) if len(text) >= length else []
        own = [(number, piece) for _, piece in pieces]
        if len(own) >= FEWEST_PIECES:
            border = round(_CURVES * len(own))
            curves += own[:border]
            held_out += own[border:]
        elif own:
            # A short text is not parted: it goes where most is missing.
            (curves if len(curves) / _CURVES <= len(held_out) / (1 - _CURVES) else held_out).extend(own)
    if not curves or not held_out:
        raise InputError(
            f"inputs must have one text of {FEWEST_PIECES * length} tokens, which is cut into {FEWEST_PIECES} pieces, "
            f"or 2 different texts of {length}, for curves and for prices, got {len(curves) + len(held_out)} pieces of "
            f"{length}. Give more text, or fewer tokens (--max-tokens)."
        )
    share = round(_CURVES * most)
    return [one for _, one in evenly(curves, max(1, share))], evenly(held_out, max(1, most - share))


def cut_ids(given: Given, cut: int) -> Tensor:
    """Token ids that are predicted behind a cut, all but the first."""
    ids = ids_of(given)
    return torch.empty(0, dtype=torch.long) if ids is None else ids[cut + 1 :]
