"""Linear recurrences: linear attention, gated and delta-rule variants, state-space models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from statesize.operators.checked import checked_sizes, promoted
from statesize.operators.operator import TensorOperator, alike
from statesize.operators.transition import (
    DeltaTransition,
    DiagonalTransition,
    FullTransition,
    RankOneTransition,
    Transition,
    chunk_outputs,
    spaced,
)


class Recurrence(TensorOperator):
    """x_t = A_t x_{t−1} + B_t u_t, y_t = C_t x_t + D_t u_t, so T[i, j] = C_i A_i … A_{j+1} B_j for j < i.

    Batch dimensions of A, B, C and D have equal rank and broadcast where 1. A complex recurrence stands for the
    real operator Re T; of modes in conjugate pairs, give one of each and twice its C.

    Args:
        A: Transitions: scalar (..., L, 1), diagonal (..., L, n) or full (..., L, n, n).
        B: Input vectors, (..., L, n).
        C: Output vectors, (..., L, n).
        D: Feed-through, real, (..., L) or (..., 1); part of `dense()`, never of the carried state.

    Raises:
        InputError: Wrong shapes or dtypes, or not finite.

    Example:
        >>> import torch
        >>> moving_sum = Recurrence(A=torch.full((3, 1), 0.5), B=torch.ones(3, 1), C=torch.ones(3, 1))
        >>> moving_sum.dense()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.2500, 0.5000, 1.0000]])
    """

    _parts = (("B", 2), ("C", 2), ("D", 1))
    _in_pairs = False  # whether complex modes come with their conjugates, so that T is real as it stands

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None) -> None:
        _, batch = checked_sizes(forms_of(A, B, C, D), complex_allowed="ABC")
        self._fill(FullTransition(A) if A.ndim > B.ndim else DiagonalTransition(A), B, C, D, batch)

    @staticmethod
    def delta_rule(key: Tensor, beta: Tensor, query: Tensor, decay: Tensor) -> Recurrence:
        """The (gated) delta rule: A_t = (I − beta_t k_t k_tᵀ) Diag(decay_t), B_t = beta_t k_t, C_t = q_tᵀ.

        Args:
            key: (..., L, n), real.
            beta: Write strength, (..., L).
            query: (..., L, n).
            decay: (..., L) or (..., L, n); ones for the plain delta rule.

        Returns:
            A recurrence whose transitions cost O(n) to store and to apply.

        Raises:
            InputError: Wrong shapes or dtypes, or not finite.
        """
        scalar = getattr(decay, "ndim", 0) == getattr(key, "ndim", 0) - 1
        forms = {"key": (key, "L n"), "beta": (beta, "L"), "query": (query, "L n")}
        _, batch = checked_sizes(forms | {"decay": (decay, "L" if scalar else "L 1|n")})
        decay = decay[..., None] if scalar else decay
        # Before they are multiplied, so that nothing is rounded to the lowest of their dtypes.
        key, strength, query, decay = promoted([key, beta[..., None], query, decay])
        transition = DeltaTransition(key, strength, decay)
        return Recurrence.__new__(Recurrence)._fill(transition, strength * key, query, None, batch)

    @staticmethod
    def diagonal_plus_rank_one(decay: Tensor, column: Tensor, row: Tensor, B: Tensor, C: Tensor) -> Recurrence:
        """A_t = Diag(decay_t) + column_t row_tᵀ, as of RWKV-7 and Comba: what a delta rule is in general.

        Args:
            decay: (..., L, 1) or (..., L, n), real as all the others.
            column: (..., L, n).
            row: (..., L, n).
            B: Input vectors, (..., L, n).
            C: Output vectors, (..., L, n).

        Returns:
            A recurrence whose transitions cost O(n) to store and to apply.

        Raises:
            InputError: Wrong shapes or dtypes, or not finite.

        Example:
            >>> one = torch.ones(3, 1)
            >>> Recurrence.diagonal_plus_rank_one(one, one, -one / 2, one, one).dense()
            tensor([[1.0000, 0.0000, 0.0000],
                    [0.5000, 1.0000, 0.0000],
                    [0.2500, 0.5000, 1.0000]])
        """
        forms = {"B": (B, "L n"), "C": (C, "L n"), "column": (column, "L n"), "row": (row, "L n")}
        _, batch = checked_sizes(forms | {"decay": (decay, "L 1|n")})
        return Recurrence.__new__(Recurrence)._fill(RankOneTransition(decay, column, row), B, C, None, batch)

    def _fill(self, transition: Transition, B: Tensor, C: Tensor, D: Tensor | None, batch_shape: torch.Size) -> Self:
        """Take parts that fit."""
        tensors = promoted([B, C, *transition.tensors(), *([] if D is None else [D])])
        self.B, self.C = tensors[:2]
        self.is_complex = self.B.is_complex()  # T is real all the same
        self.transition: Transition = transition.map(lambda part: part.to(self.B.dtype))
        self.D = None if D is None else D.to(self.B.dtype.to_real())
        self._describe(self.B, self.B.shape[-2], batch_shape)
        return self

    @property
    def A(self) -> Tensor:
        """Transitions as (..., L, 1), (..., L, n) or (..., L, n, n); full for the delta rule."""
        return self.transition.matrix()

    def dense(self) -> Tensor:
        """T, (..., L, L), by running the state of every past input at once; O(L² n) for diagonal transitions."""
        L, n = self.B.shape[-2:]
        state = self.B.new_zeros((*self.batch_shape, n, 0))
        # Rows of their own would stand between the states, and the memory of none would serve the next.
        matrix = self.B.real.new_zeros((*self.batch_shape, L, L))
        for t in range(L):
            arriving = self.B[..., t, :, None].expand(*self.batch_shape, n, 1)
            state = torch.cat([self.transition.advance(t, state), arriving], -1)
            row = (self.C[..., t, None, :] @ state).squeeze(-2)
            matrix[..., t, : t + 1] = row.real if self.is_complex else row
        return matrix if self.D is None else matrix + torch.diag_embed(self.D.expand(*self.D.shape[:-1], L))

    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping the recurrence, chunk by chunk where one number decays all of the state."""
        transition = self.transition
        if isinstance(transition, DiagonalTransition) and transition.decay.shape[-1] == 1:
            result = chunk_outputs(transition.decay, self.B, self.C, inputs.to(self.B.dtype))
        else:
            states = enumerate(self._successive_states(inputs))
            result = torch.stack([(self.C[..., t, None, :] @ state).squeeze(-2) for t, state in states], -2)
        result = result.real if self.is_complex else result
        return result if self.D is None else result + self.D[..., None] * inputs

    def states(self, inputs: Tensor, positions: Sequence[int]) -> Tensor:
        """x_{i−1} before some positions i of 1 … L, (..., P, n, channels), of inputs (..., L, channels)."""
        wanted = {i: state for i, state in enumerate(self._successive_states(inputs), 1) if i in positions}
        # Not what a delayed recurrence only reads.
        return torch.stack([wanted[i] for i in positions], -3)[..., : int(self.state_size()[0]), :]

    def _successive_states(self, inputs: Tensor) -> Iterator[Tensor]:
        """x_0, x_1, … of inputs (..., L, channels), each (..., n, channels)."""
        channels = inputs.to(self.B.dtype)
        state = self.B.new_zeros((*self.batch_shape, self.B.shape[-1], inputs.shape[-1]))
        for t in range(self.length):
            state = self.transition.advance(t, state) + self.B[..., t, :, None] * channels[..., t, None, :]
            yield state

    def state_size(self) -> Tensor:
        """Real numbers in the state, n, or 2n for n complex modes, (L,) int64."""
        parts = 2 if self.is_complex and not self._in_pairs else 1
        return torch.full((self.length,), self.B.shape[-1] * parts, device=self.device)

    def between(self, first: int, last: int) -> Self:
        """The steps first … last − 1 as a recurrence of their own, without D, in the same memory."""
        part = self._map(lambda part, own: part if own == 1 else part.narrow(-own, first, last - first))
        part.D, part.length = None, last - first
        return part

    def with_real_output(self) -> Recurrence:
        """An equal recurrence, of 2n modes if it is complex, whose T is real before the real part is taken."""
        if not self.is_complex or self._in_pairs:
            return self

        def with_conjugates(modes: Tensor) -> Tensor:
            if isinstance(self.transition, FullTransition):
                zero = torch.zeros_like(modes)
                return torch.cat([torch.cat([modes, zero], -1), torch.cat([zero, modes.conj()], -1)], -2)
            modes = modes.expand(*modes.shape[:-1], self.B.shape[-1])
            return torch.cat([modes, modes.conj()], -1)

        B, C = (torch.cat([part, part.conj()], -1) for part in (self.B, self.C / 2))
        transition = self.transition.map(with_conjugates)
        recurrence = Recurrence.__new__(Recurrence)._fill(transition, B, C, self.D, self.batch_shape)
        recurrence._in_pairs = True
        return recurrence

    def shares_state(self) -> bool:
        """See `Operator.shares_state`."""
        return alike(self.B, 2) and all(alike(part, self.transition.own) for part in self.transition.tensors())

    def with_readouts(self) -> Recurrence | None:
        """One recurrence, with a step for each output, of heads that share a state; None where A or B differ."""
        if not self.shares_state():
            return None
        readouts, own = self.batch_shape[-1], self.transition.own
        transition = self.transition.map(lambda part: part.select(-1 - own, 0)).spaced(readouts)
        B = spaced(self.B.select(-3, 0), readouts)
        C = self.C.expand(*self.C.shape[:-3], readouts, *self.C.shape[-2:]).movedim(-3, -2).flatten(-3, -2)
        return Recurrence.__new__(Recurrence)._fill(transition, B, C, None, self.batch_shape[:-1])

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; it scales B and D, in the wider dtype of the two."""
        wider = torch.promote_types(self.dtype, weights.dtype)
        scaled = copy.copy(self.to(wider))
        if isinstance(scaled.transition, DeltaTransition):
            # What a delta rule erases is what it writes; here only that is weighted.
            key, beta, decay = scaled.transition.tensors()
            scaled.transition = RankOneTransition(decay, -beta * key, key * decay)
        scaled.B = scaled.B * weights[..., None].to(wider)
        scaled.D = None if scaled.D is None else scaled.D * weights.to(wider)
        return scaled

    def _map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        made = super()._map(function)
        made.transition = self.transition.map(lambda part: function(part, self.transition.own))
        if made.dtype != self.dtype and isinstance(made.transition, DeltaTransition):
            # What is written is the product of what was given, and not of its first rounding.
            made.B = made.transition.beta * made.transition.key
        return made


def forms_of(A: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> dict[str, tuple[Tensor | None, str]]:
    """The parts of a recurrence with the names of their dimensions, for `checked_sizes`."""
    full = getattr(A, "ndim", 0) == getattr(B, "ndim", 0) + 1
    return {"B": (B, "L n"), "A": (A, "L n n" if full else "L 1|n"), "C": (C, "L n"), "D": (D, "1|L")}
