"""Linear recurrences: linear attention, gated and delta-rule variants, state-space models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from statesize.check import require_finite, require_floating
from statesize.operators.operator import TensorOperator, batch_index
from statesize.operators.recurrence_checks import (
    check_rank_one_parts,
    checked_delta_parts,
    checked_parts,
    checked_transition,
    require_real_output,
)
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
    real operator Re T.

    Args:
        A: Transitions: scalar (..., L, 1), diagonal (..., L, n) or full (..., L, n, n).
        B: Input vectors, (..., L, n).
        C: Output vectors, (..., L, n).
        D: Feed-through, real, (..., L) or (..., 1); part of `dense()`, never of the carried state.
        conjugate_pairs: For complex tensors: the n modes come in conjugate pairs, so T is real as it stands and the
            state holds n real numbers; otherwise it holds 2n.

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

    def __init__(
        self, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, *, conjugate_pairs: bool = False
    ) -> None:
        for name, tensor in (("A", A), ("B", B), ("C", C)):
            require_floating(name, tensor, complex_allowed=True)
        self._fill(checked_transition(A, B), B, C, D, conjugate_pairs)
        if conjugate_pairs:
            # One random input shows with probability 1 whether T has an imaginary part.
            probe = torch.randn(self.length, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            require_real_output(self.C, self.successive_states(probe.to(self.device)))

    @classmethod
    def delta_rule(cls, key: Tensor, beta: Tensor, query: Tensor, decay: Tensor) -> Self:
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
        decay = checked_delta_parts(key, beta, query, decay)
        # Before they are multiplied, so that nothing is rounded to the lowest of their dtypes.
        common = reduce(torch.promote_types, (part.dtype for part in (key, beta, query, decay)))
        key, strength = key.to(common), beta[..., None].to(common)
        recurrence = cls.__new__(cls)
        recurrence._fill(DeltaTransition(key, strength, decay), strength * key, query, None, False)
        return recurrence

    @classmethod
    def diagonal_plus_rank_one(cls, decay: Tensor, column: Tensor, row: Tensor, B: Tensor, C: Tensor) -> Self:
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
        parts = {"decay": decay, "column": column, "row": row}
        check_rank_one_parts(parts, B, C)
        common = torch.promote_types(torch.promote_types(decay.dtype, column.dtype), row.dtype)
        recurrence = cls.__new__(cls)
        recurrence._fill(RankOneTransition(*(part.to(common) for part in parts.values())), B, C, None, False)
        return recurrence

    def _fill(self, transition: Transition, B: Tensor, C: Tensor, D: Tensor | None, conjugate_pairs: bool) -> None:
        common, batch_shape = checked_parts(transition, B, C, D, conjugate_pairs)
        self.transition: Transition = transition.map(lambda part: part.to(common))
        self.B = B.to(common)
        self.C = C.to(common)
        self.D = None if D is None else D.to(common.to_real())
        self.conjugate_pairs = conjugate_pairs
        self._describe(self.B, self.B.shape[-2], batch_shape)

    @property
    def A(self) -> Tensor:
        """Transitions as (..., L, 1), (..., L, n) or (..., L, n, n); full for the delta rule."""
        return self.transition.matrix()

    @property
    def is_complex(self) -> bool:
        """Whether the state is complex (T is real all the same)."""
        return self.B.is_complex()

    def dense(self) -> Tensor:
        """T by running the state of every past input at once; O(L² n) for diagonal transitions.

        Returns:
            T, (..., L, L), real.
        """
        L, n = self.B.shape[-2:]
        state = self.B.new_zeros((*self.batch_shape, n, 0))
        rows: list[Tensor] = []
        for t in range(L):
            arriving = self.B[..., t, :, None].expand(*self.batch_shape, n, 1)
            state = torch.cat([self.transition.advance(t, state), arriving], -1)
            row = (self.C[..., t, None, :] @ state).squeeze(-2)
            rows.append(torch.nn.functional.pad(row.real if self.is_complex else row, (0, L - 1 - t)))
        matrix = torch.stack(rows, -2)
        return matrix if self.D is None else matrix + torch.diag_embed(self.D.expand(*self.D.shape[:-1], L))

    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping the recurrence, chunk by chunk where one number decays all of the state."""
        transition = self.transition
        if isinstance(transition, DiagonalTransition) and transition.decay.shape[-1] == 1:
            result = chunk_outputs(transition.decay, self.B, self.C, inputs.to(self.B.dtype))
        else:
            states = enumerate(self.successive_states(inputs))
            result = torch.stack([(self.C[..., t, None, :] @ state).squeeze(-2) for t, state in states], -2)
        result = result.real if self.is_complex else result
        return result if self.D is None else result + self.D[..., None] * inputs

    def states(self, inputs: Tensor, positions: Sequence[int]) -> Tensor:
        """The states before chosen positions: x_{i−1}, which all inputs before i made.

        Args:
            inputs: (..., L, channels).
            positions: Some of 1 … L.

        Returns:
            (..., P, n, channels), complex where the recurrence is.
        """
        size = (*self.batch_shape, len(positions), self.B.shape[-1], inputs.shape[-1])
        sizes = self.B.new_zeros(size)
        wanted = torch.tensor(positions)
        for t, state in enumerate(self.successive_states(inputs), 1):
            sizes[..., wanted == t, :, :] = state[..., None, :, :]
        return sizes

    def successive_states(self, inputs: Tensor) -> Iterator[Tensor]:
        """x_0, x_1, … of inputs (..., L, channels), each (..., n, channels)."""
        channels = inputs.to(self.B.dtype)
        state = self.B.new_zeros((*self.batch_shape, self.B.shape[-1], inputs.shape[-1]))
        for t in range(self.length):
            state = self.transition.advance(t, state) + self.B[..., t, :, None] * channels[..., t, None, :]
            yield state

    def state_size(self) -> Tensor:
        """Real numbers in the state: n, or 2n for n complex modes that are not conjugate pairs.

        Returns:
            (L,) int64.
        """
        doubled = self.is_complex and not self.conjugate_pairs
        return torch.full((self.length,), self.B.shape[-1] * (2 if doubled else 1), device=self.device)

    def between(self, first: int, last: int) -> Self:
        """The steps first … last − 1 as a recurrence of their own, without D.

        Args:
            first: The first step.
            last: One past the last.

        Returns:
            A recurrence that shares memory with this one.
        """
        part = self._mapped(lambda part, tail: part if tail == 1 else part.narrow(-tail, first, last - first))
        part.D, part.length = None, last - first
        return part

    def with_real_output(self) -> Recurrence:
        """An equal recurrence whose T is real before any part is taken: conjugate modes are written out.

        Returns:
            Itself unless it is complex without conjugate pairs; else a recurrence of 2n modes, diagonal or full.
        """
        if not self.is_complex or self.conjugate_pairs:
            return self
        modes = self.transition.matrix()
        if isinstance(self.transition, FullTransition):
            zero = torch.zeros_like(modes)
            paired = torch.cat([torch.cat([modes, zero], -1), torch.cat([zero, modes.conj()], -1)], -2)
        else:
            modes = modes.expand(*modes.shape[:-1], self.B.shape[-1])
            paired = torch.cat([modes, modes.conj()], -1)
        B = torch.cat([self.B, self.B.conj()], -1)
        C = torch.cat([self.C, self.C.conj()], -1) / 2
        transition = (
            FullTransition(paired) if isinstance(self.transition, FullTransition) else DiagonalTransition(paired)
        )
        recurrence = Recurrence.__new__(Recurrence)
        recurrence._fill(transition, B, C, self.D, True)
        return recurrence

    def with_readouts(self) -> Recurrence | None:
        """One recurrence for heads that share a state (the last batch dimension), with a step for each head's output.

        Returns:
            A recurrence of r steps per position, without that dimension; None where A or B differ.
        """
        readouts = self.batch_shape[-1]
        alike: list[bool] = []

        def stored(part: Tensor, tail: int) -> Tensor:
            one = part.select(-1 - tail, 0)
            alike.append(part.shape[-1 - tail] == 1 or torch.equal(part, one.unsqueeze(-1 - tail).expand_as(part)))
            return one

        tail = 3 if isinstance(self.transition, FullTransition) else 2
        transition, B = self.transition.map(lambda part: stored(part, tail)), stored(self.B, 2)
        if not all(alike):
            return None
        C = self.C.expand(*self.C.shape[:-3], readouts, *self.C.shape[-2:]).movedim(-3, -2).flatten(-3, -2)
        recurrence = Recurrence.__new__(Recurrence)
        recurrence._fill(transition.spaced(readouts), spaced(B, readouts), C, None, self.conjugate_pairs)
        return recurrence

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        if dtype is not None and self.is_complex:
            dtype = dtype.to_complex()
        moved = self._mapped(lambda part, _: part.to(device=device, dtype=dtype))
        if moved.dtype != self.dtype:
            if isinstance(moved.transition, DeltaTransition):
                # What is written is the product of what was given, and not of its first rounding.
                moved.B = moved.transition.beta * moved.transition.key
            for name, tensor in (("B", moved.B), ("C", moved.C)):
                require_finite(name, tensor)
        return moved

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        batch = batch_index(index, self.batch_shape)
        chosen = self._mapped(lambda part, tail: part.expand(self.batch_shape + part.shape[part.ndim - tail :])[batch])
        chosen.batch_shape = chosen.B.shape[:-2]
        return chosen

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; it scales B and D, in the wider dtype of the two."""
        wider = torch.promote_types(self.dtype, weights.dtype)
        copy = self._mapped(lambda part, _: part) if wider == self.dtype else self.to(wider)
        if isinstance(copy.transition, DeltaTransition):
            # What a delta rule erases is what it writes; here only that is weighted.
            key, beta, decay = copy.transition.key, copy.transition.beta, copy.transition.decay
            copy.transition = RankOneTransition(decay, -beta * key, key * decay)
        copy.B = copy.B * weights[..., None].to(wider)
        copy.D = None if copy.D is None else copy.D * weights.to(copy.D.dtype)
        return copy

    def _mapped(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """Every tensor replaced, unchecked; the function also takes how many last dimensions are no batch."""
        tail = 3 if isinstance(self.transition, FullTransition) else 2
        feed = None if self.D is None else function(self.D, 1)
        copy = type(self).__new__(type(self))
        copy.transition = self.transition.map(lambda part: function(part, tail))
        copy.B, copy.C = function(self.B, 2), function(self.C, 2)
        copy.D = feed.real if feed is not None and feed.is_complex() else feed
        copy.conjugate_pairs = self.conjugate_pairs
        copy._describe(copy.B, self.length, self.batch_shape)
        return copy
