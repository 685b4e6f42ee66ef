"""How many singular values of H = (σ_m) exceed a threshold: between certain bounds, or between probable ones."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from statesize.spectra.implicit.entropy_estimate import EntropyEstimate

_linalg = cast("Any", torch.linalg)


def count_above(estimate: EntropyEstimate, threshold: float, squared_norm: float, limit: int) -> tuple[int, int]:
    """The least and largest number of σ above a threshold, for ‖H‖_F² and min(rows, columns)."""
    space = estimate.space
    known, error = space.ritz if estimate.exact else space.nystrom, space.error_bound
    least = int((known > threshold + error).sum())
    above = max(threshold - error, 0.0)
    if estimate.exact:
        return least, min(int((known > above).sum()), limit)
    most = limit
    rest = max(0.0, squared_norm - float(known.square().sum()))
    if above:
        # H = P H + (I − P) H with the projection P on the space's image: by Weyl, σ² of the sum is above τ² as often as
        # that of the first part is above τ² − s² and that of the second above s², which is rest / s² times at most.
        shares = torch.linspace(0.05, 1.0, 20, dtype=torch.float64) * above**2
        apart = (known.square() > above**2 - shares[:, None]).sum(-1) + torch.floor(rest / shares)
        most = min(limit, int(apart.min()))
    low, high = _probable(estimate, threshold)
    return max(least, min(low, most)), min(most, max(high, least))


def _probable(estimate: EntropyEstimate, threshold: float) -> tuple[int, int]:
    """By Gauss quadrature of each probe: nodes beyond τ² weigh less than A there, with the nearest ones more."""
    # The separation theorem of Chebyshev, Markov and Stieltjes (Szegő, Orthogonal Polynomials, 3.41).
    probes, bounds = estimate.probes, []
    for start in probes.coordinates:
        padded = torch.nn.functional.pad(start, (0, estimate.space.inside.shape[0] - start.shape[0]))
        nodes, weights = _gauss(estimate.space.inside, padded, estimate.steps)
        above = nodes > threshold**2
        # The first node above the threshold does not count for less, the last one below it counts for more.
        first = int((~above).sum())
        bounds.append((float(weights[first + 1 :].sum()), float(weights[max(0, first - 1) :].sum())))
    low, high = (probes.dimension * part for part in torch.tensor(bounds, dtype=torch.float64).unbind(-1))
    least, most = low.mean() - probes.margin(low), high.mean() + probes.margin(high)
    return math.floor(float(least)), math.ceil(float(most))


def _gauss(matrix: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (≤ steps,) of the measure of a unit vector on a symmetric matrix, by its Krylov space."""
    basis = start[None] / _linalg.vector_norm(start)
    for _ in range(steps - 1):
        following = basis[-1] @ matrix
        for _ in range(2):
            following = following - following @ basis.mT @ basis
        size = float(_linalg.vector_norm(following))
        if size <= 1e-13 * float(matrix.abs().max()):
            break
        basis = torch.cat([basis, following[None] / size])
    nodes, vectors = _linalg.eigh(basis @ matrix @ basis.mT)
    return nodes, vectors[0].square()
