"""Softmax attention of long contexts, from queries and keys: T is formed by rows, again for each product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from statesize.operators import Operator, SoftmaxAttention
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, Counts, Engine, HankelBlocks
from statesize.spectra.implicit.attention import ROWS, AttentionFactors, AttentionRows, factorised
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate
from statesize.spectra.implicit.entropy_interval import CONFIDENCE

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


# Bytes of T from which on no other engine is tried.
_LARGE = 2**31
# Numbers that the vectors of any block may be.
_FEW = 2**20


@dataclass(frozen=True)
class ImplicitEngine(Engine):
    """Counts and entropies of softmax attention from products with H_i, which are formed a few rows of T at a time.

    Attributes:
        accuracy: How close, relative to it, the interval of an entropy is to be; closer ones are not computed.
        products: Of a long H_i at most, which is also how many vectors are held of it.
        whole: Up to this many columns, all singular values are computed instead.
        single_from: Length from which on scores are formed in single precision, which bounds then allow for.
    """

    accuracy: float = 0.1
    products: int = 192
    whole: int = 128
    single_from: int = 8192

    name = "implicit"
    outputs = frozenset(("counts", "entropy"))
    works_on = (SoftmaxAttention,)
    operators = "softmax attention"
    cost = "O(L² (d + P)) a product, of which some 10 to 30 make an interval of 95 % at P positions"

    def slower_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Where T can be held, other engines are certain."""
        size = DOUBLE * cut.length**2
        return None if size > _LARGE else f"only probable, and T takes {size / 1e9:.1f} GB, which others can hold"

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> ImplicitBlocks:
        """The blocks by passes over the rows of T; without gradients."""
        return ImplicitBlocks(self, cast("SoftmaxAttention", operator), cut)

    def most_products(self, columns: int) -> int:
        """How many products of a block are taken, and so many vectors held, at most."""
        return min(columns, max(self.products, _FEW // columns))

    def footprint(self, operator: Operator, cut: Cut) -> int:
        """The vectors of early positions, or later those of late ones, and in a pass some of them and rows of T."""
        early, late = _sides(sorted(set(cut.positions)), cut.length)
        held = max(sum(self.most_products(i) * i for i in sides) for sides in (early, late))
        requested = max(len(early), len(late))
        return DOUBLE * (held + (ROWS + 8 * requested) * cut.length // 2)

    def shared_footprint(self, operator: Operator, cut: Cut) -> int:
        """The factors of T with their copies."""
        return 4 * DOUBLE * (cast("SoftmaxAttention", operator).query.shape[-1] + 1) * cut.length


class ImplicitBlocks(HankelBlocks):
    """The blocks of softmax attention."""

    def __init__(self, engine: ImplicitEngine, operator: SoftmaxAttention, cut: Cut) -> None:
        self._engine, self._operator, self._cut = engine, operator, cut
        self._positions = sorted(set(cut.positions))
        self._place = [self._positions.index(i) for i in cut.positions]

    @property
    def way(self) -> str:
        """Confidence level of the bounds."""
        return f"{CONFIDENCE:.0%}"

    @cached_property
    def _heads(self) -> list[tuple[list[float], list[EntropyEstimate]]]:
        """‖H_i‖_F² (P,) and what is known of H_i at ascending positions, of each entry of the flattened batch."""
        query, key = (
            part.expand(*self._operator.batch_shape, *part.shape[-2:]).flatten(0, -3) if part.ndim > 2 else part[None]
            for part in (self._operator.query, self._operator.key)
        )
        scale, window = self._operator.scale, self._operator.window
        return [self._head(SoftmaxAttention(q, k, scale, window)) for q, k in zip(query, key, strict=True)]

    def _head(self, head: SoftmaxAttention) -> tuple[list[float], list[EntropyEstimate]]:
        """‖H_i‖_F² and what is known of H_i, at ascending positions, by whichever side of H_i is smaller."""
        factors, energy = factorised(head, self._positions)
        squares = [float(square) for square in energy]
        if head.length >= self._engine.single_from:
            factors = factors.single()
        early, late = _sides(self._positions, head.length)
        norms = [square**0.5 for square in squares]
        estimates = self._estimated(factors, early, norms[: len(early)])
        if late:
            estimates += self._estimated(factors.transposed(), late, norms[len(early) :][::-1])[::-1]
        return squares, estimates

    def _estimated(self, factors: AttentionFactors, sizes: list[int], norms: list[float]) -> list[EntropyEstimate]:
        """Of blocks with so many columns, all at once."""
        if not sizes:
            return []
        engine, device, lost, rows = self._engine, self._operator.device, factors.lost(), AttentionRows(factors, sizes)
        estimates = [
            EntropyEstimate(
                i,
                engine.accuracy,
                engine.most_products(i),
                probes=i if i <= engine.whole else 4,
                seed=i,
                lost=lost * norm,
            )
            for i, norm in zip(sizes, norms, strict=True)
        ]
        while not all(estimate.finished for estimate in estimates):
            wanted = [estimate.pending[:0] if estimate.finished else estimate.pending for estimate in estimates]
            products = rows.gram([vectors.to(device) for vectors in wanted])
            for estimate, product in zip(estimates, products, strict=True):
                if not estimate.finished:
                    estimate.advance(product.cpu())
        return estimates

    @property
    def error_bound(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """δ of the singular values that are computed, (..., P)."""
        return self._gathered([[estimate.space.error_bound for estimate in estimates] for _, estimates in self._heads])

    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""
        return self._gathered([[square**0.5 for square in squares] for squares, _ in self._heads])

    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,), in the middle of bounds."""
        taus = [float(tau) for tau in thresholds]
        return self._counted([[taus for _ in estimates] for _, estimates in self._heads], len(taus))

    def relative_counts(self, ratios: Tensor, accuracy: float = 0.0) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,), in the middle of bounds; the accuracy is what the products leave."""
        del accuracy
        largest = [
            [float(estimate.space.leading(1)[0].sum()) for estimate in estimates] for _, estimates in self._heads
        ]
        return self._counted([[[float(rho) * top for rho in ratios] for top in tops] for tops in largest], len(ratios))

    def entropies(self, accuracy: float) -> tuple[Tensor, Tensor]:
        """The middle of each interval and half of its width, both (..., P)."""
        del accuracy
        intervals = [[estimate.interval for estimate in estimates] for _, estimates in self._heads]
        entropy = self._gathered([[interval.middle for interval in row] for row in intervals])
        return entropy, self._gathered([[(interval.high - interval.low) / 2 for interval in row] for row in intervals])

    def _counted(self, thresholds: list[list[list[float]]], count: int) -> Counts:
        """Of each head and position its thresholds (K,)."""
        bounds = [
            [
                [count_above(estimate, tau, square, min(i, self._cut.length - i)) for tau in taus]
                for i, estimate, square, taus in zip(self._positions, estimates, squares, rows, strict=True)
            ]
            for (squares, estimates), rows in zip(self._heads, thresholds, strict=True)
        ]
        lower, upper = self._gathered(bounds, count, 2).to(torch.int64).unbind(-1)
        return Counts((lower + upper) // 2, lower, upper)

    def _gathered(self, values: Sequence[Sequence[object]], *tail: int) -> Tensor:
        """Values of ascending positions in the order of the cut's, (..., P, *tail)."""
        stacked = torch.tensor(values, dtype=torch.float64, device=self._operator.device)
        stacked = stacked.reshape(len(self._heads), len(self._positions), *tail)
        return stacked[:, self._place].reshape(*self._operator.batch_shape, len(self._place), *tail)


def _sides(positions: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """Of ascending positions the columns of blocks that have no more than rows, and the rows of the others, rising."""
    return [i for i in positions if 2 * i <= length], [length - i for i in positions[::-1] if 2 * i > length]
