"""Gramians of a layer's states that know its output: what is held in a state, and what reads it.

The state S_t (n, d_v) of a head is read as y_t = S_tᵀ q_t, and the head's output is y_t / |y_t| up to a factor.
Replacing S by Π S changes it by a square of about tr(W (I − Π) C (I − Π)ᵀ), with C = E S Sᵀ and W = E q qᵀ / |y|².
Both are sums over tokens of n × n matrices, so one pass over a text gives them for every head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.operators.transition import CHUNK, DiagonalTransition, chunk_states

FIRST = 8
"""Tokens of a window whose outputs are not counted: they are of a few tokens, and may be nearly 0."""


@dataclass(eq=False)
class Gramians:
    """Sums over the tokens of a text, for each head of a layer; their scale means nothing."""

    reading: Tensor  # W, (H, n, n) float64
    state: Tensor  # C, (H, n, n) float64

    @classmethod
    def zeros(cls, heads: int, states: int) -> Gramians:
        """Before the first text."""
        zeros = torch.zeros(heads, states, states, dtype=torch.float64)
        return cls(zeros, zeros.clone())

    @torch.no_grad()
    def add(self, operator: Recurrence, values: Tensor, outputs: Tensor, heads: int) -> None:
        """Add what a layer does at one text, with values and outputs (S, units, L, channels).

        Consecutive units make a head. The operator and the values may be of some units of each head.
        """
        for state in _states(operator, values):
            self.state += _squared(state, heads).double()
        by_unit = outputs[:, :, FIRST:].square().sum(-1)
        energy = by_unit.reshape(len(outputs), heads, -1, by_unit.shape[-1]).sum(2)
        # All units of a head read by one C.
        C = operator.C[:, :: values.shape[1] // heads, FIRST:]
        query = C / energy.clamp(min=torch.finfo(energy.dtype).tiny).sqrt().unsqueeze(-1)
        self.reading += torch.einsum("shln,shlm->hnm", query, query).double()


def _states(operator: Recurrence, values: Tensor) -> Iterable[Tensor]:
    """The states (S, units, n, channels) after each whole chunk of tokens; they change little from token to token."""
    # Of single channels the products would be no larger than the steps.
    if isinstance(operator.transition, DiagonalTransition) and values.shape[-1] > 1:
        return chunk_states(operator.transition.decay, operator.B, values.to(operator.B.dtype))[
            : values.shape[-2] // CHUNK
        ]
    return (state for t, state in enumerate(operator.successive_states(values), 1) if t % CHUNK == 0)


def _squared(state: Tensor, heads: int) -> Tensor:
    """Σ S Sᵀ of states (S, units, n, channels) over all but heads, which are consecutive units, (H, n, n)."""
    S, units, n, channels = state.shape
    if channels == 1:
        columns = state.view(S, heads, -1, n).permute(1, 3, 0, 2).reshape(heads, n, -1)
        return columns @ columns.mT
    return (state @ state.mT).sum(0).view(heads, units // heads, n, n).sum(1)


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
