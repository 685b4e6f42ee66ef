"""Which r numbers of a head's n-dimensional state are kept, and how its queries read them.

Each way gives a projection Π of rank r, and `error`, tr(W (I − Π) C (I − Π)ᵀ) over tr(W C) for each r. Balanced
truncation (Moore 1981) takes the Π of least error: W^½ Π C^½ is the truncated singular value decomposition of W^½ C^½.
It mixes the n numbers, so it needs one decay for all of a head. A delta rule asks for an orthonormal basis. Where each
number has a decay of its own, a selection of them is kept, one after another the one that leaves the least error, and
queries read the others by their least-squares estimate, or not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

_linalg = cast("Any", torch.linalg)
# Directions of a Gramian below this share of its largest are held to be at it.
_FLOOR = 1e-10
# Added to the diagonal of what a read-out is solved from, relative to its mean.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Truncation:
    """A head's state cut to r numbers: its query becomes q · query_map; its keys k · key_map, or some channels."""

    query_map: Tensor  # (n, r) float64
    key_map: Tensor | None  # (n, r) float64; None where channels are kept
    channels: tuple[int, ...]  # all n channels, those that are kept first; empty where keys are mapped


@dataclass(frozen=True, eq=False)
class Basis(ABC):
    """The states of a head in an order in which they can be cut."""

    name: ClassVar[str]
    error: Tensor  # share of the output's energy that r states miss, for r = 0 … n, (n + 1,) float64

    @abstractmethod
    def cut(self, states: int) -> Truncation:
        """The first r states."""


@dataclass(frozen=True, eq=False)
class BalancedBasis(Basis):
    """Any combinations of the n numbers, in the order of what they pass on."""

    name = "balanced truncation"
    query_maps: Tensor  # (n, n)
    key_maps: Tensor  # (n, n)

    @classmethod
    def of(cls, reading: Tensor, state: Tensor) -> BalancedBasis:
        """The basis for W and C, (n, n)."""
        read, unread = _roots(reading)
        held, unheld = _roots(state)
        U, sigma, Vt = _linalg.svd(read @ held)
        scale = sigma.sqrt()
        return cls(_tails(sigma.square()), unread @ U * scale, unheld @ Vt.mT * scale)

    def cut(self, states: int) -> Truncation:
        """The first r states."""
        return Truncation(self.query_maps[:, :states], self.key_maps[:, :states], ())


@dataclass(frozen=True, eq=False)
class OrthonormalBasis(Basis):
    """Orthonormal combinations of the n numbers, for (gated) delta rules: (I − β k kᵀ) keeps its form in these alone.

    They are the eigenvectors of W / tr W + C / tr C; of those that were tried they cost least.
    """

    name = "orthonormal basis"
    vectors: Tensor  # (n, n)

    @classmethod
    def of(cls, reading: Tensor, state: Tensor) -> OrthonormalBasis:
        """The basis for W and C, (n, n)."""
        vectors = _linalg.eigh(reading / reading.trace() + state / state.trace())[1].flip(-1)
        costs = (vectors.mT @ reading @ vectors) * (vectors.mT @ state @ vectors)
        # tr(W_DD C_DD) of the last numbers; where one more makes it larger, fewer do not cost less.
        tails = costs.flip(0, 1).cumsum(0).cumsum(1).diagonal().flip(0)
        tails = torch.cat([tails, tails.new_zeros(1)]).flip(0).cummax(0).values.flip(0)
        return cls(tails / tails[0], vectors)

    def cut(self, states: int) -> Truncation:
        """The first r states."""
        return Truncation(self.vectors[:, :states], self.vectors[:, :states], ())


@dataclass(frozen=True, eq=False)
class SelectedBasis(Basis):
    """Some of the n numbers themselves, which keep their decays."""

    name = "selection with corrected read-out"
    order: tuple[int, ...]
    state: Tensor  # C, (n, n)

    @classmethod
    def of(cls, reading: Tensor, state: Tensor) -> SelectedBasis:
        """The greedy order for W and C, (n, n)."""
        # `missed` is the part of C that the numbers so far do not tell: their Schur complement.
        missed, order = state.clone(), list[int]()
        errors = [float((reading * missed).sum())]
        least = _FLOOR * float(state.diagonal().max())
        for _ in range(len(state)):
            variance = missed.diagonal().clamp(min=least)
            gain = ((reading @ missed) * missed).sum(0) / variance
            gain[order] = -torch.inf
            best = int(gain.argmax())
            order.append(best)
            missed = missed - missed[:, best, None] * missed[best] / variance[best]
            errors.append(max(0.0, float((reading * missed).sum())))
        return cls(torch.tensor(errors, dtype=torch.float64) / errors[0], tuple(order), state)

    def cut(self, states: int) -> Truncation:
        """The first r states."""
        kept = list(self.order[:states])
        among = self.state[kept][:, kept]
        ridge = _RIDGE * among.diagonal().mean() * torch.eye(states, dtype=among.dtype)
        return Truncation(_linalg.solve(among + ridge, self.state[kept]).mT, None, self.order)


@dataclass(frozen=True, eq=False)
class KeptBasis(Basis):
    """Some of the n numbers themselves, read as they were: for models whose code has no place for another read-out."""

    name = "selection"
    order: tuple[int, ...]

    @classmethod
    def of(cls, reading: Tensor, state: Tensor) -> KeptBasis:
        """The greedy order for W and C, (n, n): one after another goes the number whose loss costs least."""
        costs = reading * state
        dropped, errors = list[int](), [0.0]
        alone, shared = costs.diagonal(), torch.zeros(len(costs), dtype=costs.dtype)
        for _ in range(len(costs)):
            # tr(W_DD C_DD) of what was dropped, and one more.
            added = alone + 2 * shared
            added[dropped] = torch.inf
            least = int(added.argmin())
            errors.append(errors[-1] + float(added[least]))
            dropped.append(least)
            shared = shared + costs[least]
        order = tuple(reversed(dropped))
        return cls(torch.tensor(errors[::-1], dtype=torch.float64) / errors[-1], order)

    def cut(self, states: int) -> Truncation:
        """The first r states."""
        chosen = torch.eye(len(self.order), dtype=torch.float64)[:, list(self.order[:states])]
        return Truncation(chosen, None, self.order)


def _roots(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a Gramian, and its inverse."""
    values, vectors = _linalg.eigh(gramian)
    values = values.clamp(min=_FLOOR * values[-1])
    return (vectors * values.sqrt()) @ vectors.mT, (vectors * values.rsqrt()) @ vectors.mT


def _tails(energies: Tensor) -> Tensor:
    """Σ_{m > r} of energies over their sum, for r = 0 … n."""
    tails = energies.flip(0).cumsum(0).flip(0)
    return torch.cat([tails, tails.new_zeros(1)]) / tails[0]
