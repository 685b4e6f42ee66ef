"""Gramians of a head's n-dimensional state, and the bases in which the state is cut to r numbers.

The state S_t (n, d_v) is read as y_t = S_tᵀ q_t, and the head's output is y_t / |y_t| up to a factor. A projection Π of
the state changes the output by a square of about tr(W (I − Π) C (I − Π)ᵀ), with C = E S Sᵀ and W = E q qᵀ / |y|². Both
Gramians are sums over tokens of n × n matrices, so one pass over a text computes them for all heads.

Each basis has a projection of rank r for every r; its `error` is this square over tr(W C). Balanced truncation (Moore
1981) has the least error: W^½ Π C^½ is the truncated singular value decomposition of W^½ C^½. It mixes the n numbers,
so all of a head must have one decay. A delta rule needs an orthonormal basis. If each number has its own decay, numbers
are selected greedily, and queries read the others by their least-squares estimate or not at all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from statesize.errors import ModelError
from statesize.operators import Recurrence
from statesize.operators.transition import CHUNK, DiagonalTransition, chunk_states

FIRST = 8
"""Tokens at the start of a window whose outputs do not count: they depend on few tokens and may be nearly 0."""

_linalg = cast("Any", torch.linalg)
# Eigenvalues of a Gramian are raised to this share of the largest.
_FLOOR = 1e-10
# Ridge of the least-squares read-out, relative to the mean of the diagonal.
_RIDGE = 1e-6


@dataclass(eq=False)
class Gramians:
    """Gramians of each head of a layer, summed over the tokens of a text, on the CPU; their scale is arbitrary."""

    reading: Tensor  # W, (H, n, n) float64
    state: Tensor  # C, (H, n, n) float64

    @classmethod
    def zeros(cls, heads: int, states: int) -> Gramians:
        """The sums over no text."""
        zeros = torch.zeros(heads, states, states, dtype=torch.float64)
        return cls(zeros, zeros.clone())

    @torch.no_grad()
    def add(self, operator: Recurrence, values: Tensor, outputs: Tensor, heads: int) -> None:
        """Add a text, with values and outputs (S, units, L, channels); a head is a group of consecutive units."""
        # The operator and the values may have only some units of each head.
        for state in _states(operator, values):
            self.state += _squared(state, heads).double().cpu()
        by_unit = outputs[:, :, FIRST:].square().sum(-1)
        energy = by_unit.reshape(len(outputs), heads, -1, by_unit.shape[-1]).sum(2)
        # All units of a head have the same C.
        C = operator.C[:, :: values.shape[1] // heads, FIRST:]
        # Where the output is 0, there is nothing to lose.
        query = C / energy.where(energy > torch.finfo(energy.dtype).tiny, torch.inf).sqrt().unsqueeze(-1)
        self.reading += torch.einsum("shln,shlm->hnm", query, query).double().cpu()


def _states(operator: Recurrence, values: Tensor) -> Iterable[Tensor]:
    """The states after each full chunk of tokens, (S, units, n, channels)."""
    # For single channels, computing whole chunks by products is not faster than single steps.
    if isinstance(operator.transition, DiagonalTransition) and values.shape[-1] > 1:
        return chunk_states(operator.transition.decay, operator.B, values.to(operator.B.dtype))[
            : values.shape[-2] // CHUNK
        ]
    return (state for t, state in enumerate(operator.successive_states(values), 1) if t % CHUNK == 0)


def _squared(state: Tensor, heads: int) -> Tensor:
    """Σ S Sᵀ of states (S, units, n, channels) for each head, (H, n, n)."""
    S, units, n, channels = state.shape
    if channels == 1:
        columns = state.view(S, heads, -1, n).permute(1, 3, 0, 2).reshape(heads, n, -1)
        return columns @ columns.mT
    return (state @ state.mT).sum(0).view(heads, units // heads, n, n).sum(1)


@dataclass(frozen=True, eq=False)
class StateCut:
    """A head's state cut to r numbers: its query becomes q · query_map; its keys k · key_map, or some channels."""

    query_map: Tensor  # (n, r) float64
    key_map: Tensor | None  # (n, r) float64; None if channels are selected
    channels: tuple[int, ...]  # all n channels, the selected ones first; empty if keys are mapped


@dataclass(frozen=True, eq=False)
class Basis(ABC):
    """The states of a head in the order in which they are cut."""

    name: ClassVar[str]
    error: Tensor  # lost share of the output's energy with r states, for r = 0 … n, (n + 1,) float64

    @classmethod
    def of(cls, reading: Tensor, state: Tensor) -> Self:
        """The basis for W and C, (n, n); refuse what is not finite."""
        energy = float((reading * state).sum())
        if not math.isfinite(energy):
            raise ModelError(
                "model must have finite states and outputs on the text, got NaN or infinity. Check its weights, or "
                "load it in float32."
            )
        if energy > torch.finfo(state.dtype).eps * float(reading.trace() * state.trace()):
            return cls._of(reading, state)
        # A head that writes nothing, or whose state is not read, loses nothing in any basis.
        identity = torch.eye(len(state), dtype=state.dtype)
        basis = cls._of(identity, identity)
        return replace(basis, error=torch.zeros_like(basis.error))

    @classmethod
    @abstractmethod
    def _of(cls, reading: Tensor, state: Tensor) -> Self:
        """The basis of a head whose output is not 0."""

    @abstractmethod
    def cut(self, states: int) -> StateCut:
        """The first r states."""


@dataclass(frozen=True, eq=False)
class BalancedBasis(Basis):
    """Combinations of the n numbers in the order of their Hankel singular values."""

    name = "balanced truncation"
    query_maps: Tensor  # (n, n)
    key_maps: Tensor  # (n, n)

    @classmethod
    def _of(cls, reading: Tensor, state: Tensor) -> Self:
        """The basis for W and C, (n, n)."""
        W_root, W_inverse_root = _roots(reading)
        C_root, C_inverse_root = _roots(state)
        U, sigma, Vt = _linalg.svd(W_root @ C_root)
        scale = sigma.sqrt()
        tails = sigma.square().flip(0).cumsum(0).flip(0)
        error = torch.cat([tails, tails.new_zeros(1)]) / tails[0]
        return cls(error, W_inverse_root @ U * scale, C_inverse_root @ Vt.mT * scale)

    def cut(self, states: int) -> StateCut:
        """The first r states."""
        return StateCut(self.query_maps[:, :states], self.key_maps[:, :states], ())


@dataclass(frozen=True, eq=False)
class OrthonormalBasis(Basis):
    """Orthonormal combinations of the n numbers: only these preserve the form (I − β k kᵀ) of (gated) delta rules."""

    # The eigenvectors of W / tr W + C / tr C lost least of the bases that were tried.

    name = "orthonormal basis"
    vectors: Tensor  # (n, n)

    @classmethod
    def _of(cls, reading: Tensor, state: Tensor) -> Self:
        """The basis for W and C, (n, n)."""
        vectors = _linalg.eigh(reading / reading.trace() + state / state.trace())[1].flip(-1)
        costs = (vectors.mT @ reading @ vectors) * (vectors.mT @ state @ vectors)
        # tr(W_DD C_DD) of the dropped numbers D. Since it may fall with one more, take the maximum over smaller D.
        tails = costs.flip(0, 1).cumsum(0).cumsum(1).diagonal().flip(0)
        tails = torch.cat([tails, tails.new_zeros(1)]).flip(0).cummax(0).values.flip(0)
        return cls(tails / tails[0], vectors)

    def cut(self, states: int) -> StateCut:
        """The first r states."""
        return StateCut(self.vectors[:, :states], self.vectors[:, :states], ())


@dataclass(frozen=True, eq=False)
class SelectedBasis(Basis):
    """Some of the n numbers with their own decays, and queries that estimate the others."""

    name = "selection with corrected read-out"
    order: tuple[int, ...]
    state: Tensor  # C, (n, n)

    @classmethod
    def _of(cls, reading: Tensor, state: Tensor) -> Self:
        """The greedy order for W and C, (n, n)."""
        # The covariance that the selected numbers do not explain: the Schur complement of their block of C.
        residual, order = state.clone(), list[int]()
        errors = [float((reading * residual).sum())]
        least = _FLOOR * float(state.diagonal().max())
        for _ in range(len(state)):
            variance = residual.diagonal().clamp(min=least)
            gain = ((reading @ residual) * residual).sum(0) / variance
            gain[order] = -torch.inf
            best = int(gain.argmax())
            order.append(best)
            residual = residual - residual[:, best, None] * residual[best] / variance[best]
            errors.append(max(0.0, float((reading * residual).sum())))
        return cls(torch.tensor(errors, dtype=torch.float64) / errors[0], tuple(order), state)

    def cut(self, states: int) -> StateCut:
        """The first r states."""
        selected = list(self.order[:states])
        block = self.state[selected][:, selected]
        ridge = _RIDGE * block.diagonal().mean() * torch.eye(states, dtype=block.dtype)
        return StateCut(_linalg.solve(block + ridge, self.state[selected]).mT, None, self.order)


@dataclass(frozen=True, eq=False)
class KeptBasis(Basis):
    """Some of the n numbers with unchanged queries, for models whose code allows no other read-out."""

    name = "selection"
    order: tuple[int, ...]

    @classmethod
    def _of(cls, reading: Tensor, state: Tensor) -> Self:
        """The greedy order for W and C, (n, n): the next number to drop is the one that costs least."""
        costs = reading * state
        dropped, errors = list[int](), [0.0]
        alone, shared = costs.diagonal(), torch.zeros(len(costs), dtype=costs.dtype)
        for _ in range(len(costs)):
            # The increase of tr(W_DD C_DD) over the dropped numbers D by one more.
            increase = alone + 2 * shared
            increase[dropped] = torch.inf
            least = int(increase.argmin())
            errors.append(errors[-1] + float(increase[least]))
            dropped.append(least)
            shared = shared + costs[least]
        order = tuple(reversed(dropped))
        return cls(torch.tensor(errors[::-1], dtype=torch.float64) / errors[-1], order)

    def cut(self, states: int) -> StateCut:
        """The first r states."""
        selection = torch.eye(len(self.order), dtype=torch.float64)[:, list(self.order[:states])]
        return StateCut(selection, None, self.order)


def _roots(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a Gramian, and its inverse."""
    values, vectors = _linalg.eigh(gramian)
    values = values.clamp(min=_FLOOR * values[-1])
    return (vectors * values.sqrt()) @ vectors.mT, (vectors * values.rsqrt()) @ vectors.mT
