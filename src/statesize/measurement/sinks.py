"""Attention sinks: the token that takes most of a head's attention, and ESS with and without its column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Dense, Operator, SoftmaxAttention

MARKED = 0.2
"""Share of the attention from which on a token counts as a sink."""
CUTS = (0.25, 0.5, 0.75)
"""Where ESS with and without the sink's column is measured, as shares of the sequence."""
# Tokens of a sequence up to which a head's whole T is made.
_LONGEST = 4096

_linalg = cast("Any", torch.linalg)


@dataclass(frozen=True)
class Sink:
    """The sink of one head.

    Attributes:
        share: Mean over rows of the weight on the column that gets most of it.
        position: Which column that is.
        entropy: Mean entropy-ESS at CUTS; NaN where the share is not above MARKED and twice what the first token gets
            of even attention.
        without: The same of H_i without that column.
    """

    share: float
    position: int
    entropy: float = math.nan
    without: float = math.nan


def sinks(operator: Operator) -> list[Sink] | None:
    """The sink of each head of attention, batch shape (1, heads); None where rows of T are no shares of attention.

    Args:
        operator: T of some heads over one sequence.

    Returns:
        One for each head.

    Example:
        >>> first = torch.zeros(4, 4)
        >>> first[:, 0] = 1
        >>> sinks(Dense(first[None, None]))[0].position
        0
    """
    if not isinstance(operator, Dense | SoftmaxAttention) or operator.length > _LONGEST:
        return None
    heads = [operator[0, head].dense().detach() for head in range(operator.batch_shape[1])]
    # Rows of softmax sum to 1, or to less where a head may attend to nothing.
    if any(bool(((T < 0).any()) | (T.sum(-1) > 1.001).any()) for T in heads):
        return None
    return [_sink(T) for T in heads]


def _sink(T: Tensor) -> Sink:
    weights = T.double().mean(0)
    position = int(weights.argmax())
    share = float(weights[position])
    # Of a short text the first token gets a large share even where a head attends evenly.
    even = sum(1 / row for row in range(1, len(T) + 1)) / len(T)
    if not share > max(MARKED, 2 * even):
        return Sink(share, position)
    cuts = sorted({cut for part in CUTS if 0 < (cut := int(part * len(T))) < len(T)})
    blocks = [T[cut:, :cut].double() for cut in cuts]
    entropies = [_entropy(block) for block in blocks]
    without = [_entropy(torch.cat([block[:, :position], block[:, position + 1 :]], 1)) for block in blocks]
    return Sink(share, position, _mean(entropies), _mean(without))


def _entropy(block: Tensor) -> float:
    """Entropy-ESS of H_i from its Gram matrix, whose rounding, below 1e-8 σ₁, no digit that is shown has."""
    if not block.shape[1]:
        return 0.0
    gram = block @ block.mT if block.shape[0] < block.shape[1] else block.mT @ block
    values: Tensor = _linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = values.sum()
    if not float(total) > 0:
        return 0.0
    shares = values[values > 0] / total
    return float((-(shares * shares.log()).sum()).exp())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
