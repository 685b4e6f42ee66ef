"""N-gram language models with interpolated, modified Kneser–Ney smoothing: the baseline that a text model must beat.

Source: Chen & Goodman, "An empirical study of smoothing techniques for language modeling", 1999, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from statesize.check import refuse
from statesize.errors import InputError


@dataclass(frozen=True, eq=False)
class _Level:
    """One order of the model, as sorted tables; an n-gram is the number that its ids are the digits of."""

    grams: Tensor  # seen n-grams, sorted int64
    discounted: Tensor  # per n-gram, its discounted count over the total count of its context, float64
    contexts: Tensor  # seen contexts, sorted int64
    weights: Tensor  # per context, the mass that discounting left to the next lower order, float64


@dataclass(frozen=True, eq=False)
class KneserNey:
    """Interpolated, modified Kneser–Ney: p(w | h) is positive and sums to one over the vocabulary for every h."""

    vocabulary_size: int  # number of token ids, V
    levels: tuple[_Level, ...] = field(repr=False)  # orders 1 … n; below order 1 stands the uniform distribution

    @property
    def order(self) -> int:
        """The n of n-gram: 1 for unigrams, 3 for trigrams."""
        return len(self.levels)

    def probability(self, contexts: Tensor, targets: Tensor) -> Tensor:
        """p(target | context), (N,) float64, of ids (N,) after the ids before them, (N, order − 1)."""
        probability = torch.full(targets.shape, 1 / self.vocabulary_size, dtype=torch.float64)
        for order, level in enumerate(self.levels, start=1):
            context = _number(contexts[:, self.order - order :], self.vocabulary_size)
            lower = _look_up(level.contexts, level.weights, context, missing=1.0) * probability
            gram = context * self.vocabulary_size + targets
            probability = lower + _look_up(level.grams, level.discounted, gram, missing=0.0)
        return probability


def fit_kneser_ney(tokens: Tensor, order: int, vocabulary_size: int) -> KneserNey:
    """Count n-grams of a stream of tokens (N,) and smooth them."""
    # The highest order uses how often an n-gram occurs, lower orders how many different tokens stand before it.
    if order < 1 or order * math.log2(vocabulary_size) >= 63:
        refuse("order", "at least 1, and vocabulary_size^order below 2^63", order)
    if len(tokens) < order:
        raise InputError(f"tokens must be at least {order} for n-grams of order {order}, got {len(tokens)}.")
    grams, levels = _number(tokens.unfold(0, order, 1), vocabulary_size), list[_Level]()
    for lower in range(order, 0, -1):
        grams, _, counts = _unique(grams % vocabulary_size**lower)
        contexts, context_of, _ = _unique(grams // vocabulary_size)
        discounts, zeros = _discounts(counts)[counts.clamp_max(3)], torch.zeros(len(contexts), dtype=torch.float64)
        totals = zeros.index_add(0, context_of, counts.double())
        discounted = (counts.double() - discounts) / totals[context_of]
        levels.append(_Level(grams, discounted, contexts, zeros.index_add(0, context_of, discounts) / totals))
    return KneserNey(vocabulary_size, tuple(reversed(levels)))


def mean_nats(model: KneserNey, tokens: Tensor) -> float:
    """Mean of −ln p, in nats, over a stream of tokens (M,), each predicted from those before it."""
    # The first tokens are predicted as if the end of the stream stood before it, as in `TextTask.held_out`: give the
    # result to `TextTask.report` and it is comparable with a trained model's.
    before = torch.stack([tokens.roll(shift) for shift in range(model.order - 1, -1, -1)], dim=1)
    return -float(model.probability(before[:, :-1], tokens).log().mean())


def _number(grams: Tensor, vocabulary_size: int) -> Tensor:
    number = torch.zeros(len(grams), dtype=torch.int64)
    for column in grams.unbind(1):
        number = number * vocabulary_size + column
    return number


def _unique(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # torch.unique has no types of its own.
    return cast("tuple[Tensor, Tensor, Tensor]", torch.unique(values, return_inverse=True, return_counts=True))  # pyright: ignore[reportUnknownMemberType]


def _look_up(keys: Tensor, values: Tensor, wanted: Tensor, missing: float) -> Tensor:
    index = torch.searchsorted(keys, wanted).clamp_max_(len(keys) - 1)
    return torch.where(keys[index] == wanted, values[index], missing)


def _discounts(counts: Tensor) -> Tensor:
    """Chen & Goodman's estimates of what to take off counts 0, 1, 2, and 3 or more, (4,) float64."""
    # Small or odd samples can make these zero or undefined; a discount is then that of the count below it, so that
    # every context leaves something to the lower order.
    n1, n2, n3, n4 = ((counts == k).sum().item() for k in range(1, 5))
    if not n1 or not n2:
        return torch.tensor([0.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    first = n1 / (n1 + 2 * n2)
    second = max(first, 2 - 3 * first * n3 / n2)
    third = max(second, 3 - 4 * first * n4 / n3) if n3 else second
    return torch.tensor([0.0, first, second, third], dtype=torch.float64)
