"""Texts with a pair of tokens put in at some depth, and the question for it after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statesize.errors import InputError

NEEDLE = 2
"""Tokens of a needle: a key and its value."""


@dataclass(frozen=True, eq=False)
class Haystack:
    """S pieces of text whose key comes again at position `context`; what follows it is the answer.

    Attributes:
        needle: With key and value `depth` tokens before the question, (S, L) int64.
        plain: The same texts as they were there, (S, L) int64.
        answers: The values, (S,) int64.
        context: Tokens before the question.
        depth: Tokens from the key to the question.
    """

    needle: Tensor
    plain: Tensor
    answers: Tensor
    context: int
    depth: int

    @property
    def place(self) -> slice:
        """The positions of the needle."""
        return slice(self.context - self.depth, self.context - self.depth + NEEDLE)


def haystacks(pieces: Sequence[Tensor], context: int, depths: Sequence[int], seed: int) -> list[Haystack]:
    """One haystack a depth, of pieces (L,) of one length; each piece has the same needle at all depths."""
    # Key and value are tokens of the other pieces that this one lacks, so that nothing else in it points to them.
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.nonzero(torch.bincount(torch.cat(list(pieces))))[:, 0]
    pairs: list[Tensor] = []
    for piece in pieces:
        lacking = vocabulary[~torch.isin(vocabulary, piece)]
        if len(lacking) < NEEDLE:
            raise InputError(
                "inputs must have tokens that are in some excerpts and not in others, for keys and values; got the "
                "same tokens in all. Give more or other texts."
            )
        pairs.append(lacking[torch.randperm(len(lacking), generator=generator)[:NEEDLE]])
    drawn, plain = torch.stack(pairs), torch.stack(list(pieces))
    plain[:, context : context + NEEDLE] = drawn
    made: list[Haystack] = []
    for depth in depths:
        haystack = Haystack(plain.clone(), plain, drawn[:, 1], context, depth)
        haystack.needle[:, haystack.place] = drawn
        made.append(haystack)
    return made
