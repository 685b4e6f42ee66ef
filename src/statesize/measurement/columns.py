"""Columns of T that lead: attention sinks, and entropy-ESS with columns weighted or left out, at a few cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from statesize.measurement.measurement import hankel_singular_values
from statesize.measurement.metrics import entropy_ess
from statesize.measurement.settings import MARKED
from statesize.operators import Dense, Operator, SoftmaxAttention
from statesize.parallel.threads import in_parallel, one_thread

CUTS = (0.25, 0.5, 0.75)
"""Where variants of ESS are measured, as shares of the sequence."""
LONGEST = 4096
"""Tokens of a sequence up to which a head's whole T is made."""


@dataclass(frozen=True)
class Sink:
    """The sink of one head.

    Attributes:
        share: Mean over rows of the weight on the column that gets most of it.
        position: Which column that is.
        without: Entropy-ESS of H_i without that column; NaN where the share is not above MARKED and twice what the
            first token gets of even attention.
    """

    share: float
    position: int
    without: float = math.nan


def sinks(operator: Operator, cut: int) -> list[Sink] | None:
    """The sink of each head of attention, batch shape (1, heads); None where rows of T are no shares of attention.

    Args:
        operator: T of some heads over one sequence.
        cut: Position i of H_i.

    Returns:
        One for each head.

    Example:
        >>> first = torch.zeros(4, 4)
        >>> first[:, 0] = 1
        >>> sinks(Dense(first[None, None]), cut=2)[0].position
        0
    """
    if not isinstance(operator, Dense | SoftmaxAttention) or operator.length > LONGEST:
        return None
    heads = operator[0].dense().detach()
    # Rows of softmax sum to 1, or to less where a head may attend to nothing.
    if bool((heads < 0).any() | (heads.sum(-1) > 1.001).any()):
        return None
    # The first token of a short text gets a large share even where a head attends evenly.
    even = sum(1 / row for row in range(1, operator.length + 1)) / operator.length
    # LAPACK's own threads only wait for one another here.
    with one_thread():
        return in_parallel([partial(_sink, T, cut, max(MARKED, 2 * even)) for T in heads])


def _sink(T: Tensor, cut: int, marked: float) -> Sink:
    weights = T.double().mean(0)
    position = int(weights.argmax())
    share = float(weights[position])
    if not share > marked:
        return Sink(share, position)
    block = T[cut:, :cut].double()
    rest = torch.cat([block[:, :position], block[:, position + 1 :]], 1)
    return Sink(share, position, float(entropy_ess(_values(rest))))


def entropies(operator: Operator, squares: bool = False) -> list[float]:
    """Entropy-ESS of each unit of an operator, batch shape (1, units), as the mean over CUTS.

    Args:
        operator: T of some units over one sequence.
        squares: Take the entropy of σ² in place of σ.

    Returns:
        One for each unit; NaN for a sequence of one token.

    Example:
        >>> T = torch.diag(torch.tensor([3.0, 1, 1]), -1)[None, None]
        >>> [round(value, 2) for value in entropies(Dense(T)) + entropies(Dense(T), squares=True)]
        [1.0, 1.0]
    """
    cuts = sorted({cut for part in CUTS if 0 < (cut := int(part * operator.length)) < operator.length})
    units = operator.batch_shape[1]
    if not cuts:
        return [math.nan] * units
    if isinstance(operator, Dense | SoftmaxAttention):
        with one_thread():
            heads = operator[0].dense().double()
            spectra = in_parallel([lambda T=T: [_values(T[cut:, :cut]) for cut in cuts] for T in heads])
    else:
        spectra = [list(unit) for unit in hankel_singular_values(operator, cuts)[0]]
    of_units = ([entropy_ess(sigma.square() if squares else sigma) for sigma in unit] for unit in spectra)
    return [float(torch.stack(entropies).mean()) for entropies in of_units]


def _values(block: Tensor) -> Tensor:
    """Singular values from the Gram matrix, whose rounding, below 1e-8 σ₁, no digit that is shown has."""
    if not block.shape[1]:
        return block.new_zeros(1)
    # Numpy makes half of the product, and takes two thirds of torch's time for eigenvalues.
    long = (block if block.shape[0] < block.shape[1] else block.mT).cpu().numpy()
    return torch.from_numpy(np.linalg.eigvalsh(long @ long.T)).clamp(min=0).sqrt()
