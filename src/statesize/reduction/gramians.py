"""Gramians of a layer's states that know its output: what is held in a state, and what reads it.

The state S_t (n, d_v) of a head is read as y_t = S_tᵀ q_t, and the head's output is y_t / |y_t| up to a factor.
Replacing S by Π S changes it by a square of about tr(W (I − Π) C (I − Π)ᵀ), with C = E S Sᵀ and W = E q qᵀ / |y|².
Both are sums over tokens of n × n matrices, so one pass over a text gives them for every head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
