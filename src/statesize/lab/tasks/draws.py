"""Draws without replacement, a row for each sequence of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def distinct(count: int, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers in random order, each row drawn for itself, (rows, draws) int64."""
    if draws * draws > count:
        return torch.rand(rows, count, dtype=torch.float64, generator=generator).topk(draws).indices
    # Few of many, as keys of a large vocabulary: most rows are without repeats at once, the others are drawn anew.
    numbers = torch.randint(count, (rows, draws), generator=generator)
    while True:
        ordered = numbers.sort().values
        again = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().squeeze(1)
        if len(again) == 0:
            return numbers
        numbers[again] = torch.randint(count, (len(again), draws), generator=generator)


def race(log_weights: Tensor, draws: int, rows: int, generator: torch.Generator) -> Tensor:
    """Different numbers, ascending, drawn one after the other in proportion to weights, (rows, draws) int64."""
    # The `draws` first arrivals of independent exponential waiting times with these rates (Efraimidis & Spirakis,
    # "Weighted random sampling with a reservoir", 2006).
    waits = torch.empty(rows, len(log_weights), dtype=torch.float64).exponential_(generator=generator)
    return (waits.log() - log_weights).topk(draws, largest=False).indices.sort().values
