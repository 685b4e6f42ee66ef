"""Operators around others: several readouts of one stored input, several steps per position, or one input late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from statesize.check import require_finite, shape
from statesize.errors import InputError
from statesize.operators.operator import Operator, batch_index
from statesize.operators.recurrence import Recurrence
from statesize.operators.state_space import StateSpace
from statesize.operators.transition import PairTransition


class Shared(Operator):
    """r readouts y^h = T_h u of one stored input u, such as the query heads that share a key-value head.

    Its H_i^g is the stack of T_1[i:, :i] … T_r[i:, :i], r (L − i) × i, and its rank the smallest memory that serves all
    of them: at least the largest ESS of one readout, at most their sum. Counted one by one, shared numbers are counted
    again for each.

    Args:
        operator: Any operator of one input and one output per position; its last batch dimension counts the readouts.

    Raises:
        InputError: Not an operator, one of several inputs or outputs, or one without a batch dimension or readouts.

    Example:
        >>> import torch
        >>> from statesize import Recurrence, measure
        >>> key, query = torch.eye(4)[None], torch.ones(3, 4, 4).cumsum(0)
        >>> heads = Recurrence(A=torch.ones(1, 4, 1), B=key, C=query)
        >>> measure(heads).count.squeeze(-1).sum(0), measure(Shared(heads)).count.squeeze(-1)
        (tensor([3, 3, 3]), tensor([1, 1, 1]))
    """

    def __init__(self, operator: Operator) -> None:
        if not isinstance(operator, Operator) or isinstance(operator, Shared):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"operator must be a statesize Operator of readouts, got {type(operator).__name__}.")
        if not operator.batch_shape or not operator.batch_shape[-1]:
            raise InputError(
                f"operator must have its readouts as its last batch dimension, got batch shape "
                f"{tuple(operator.batch_shape)}. Index or stack it first."
            )
        if (operator.inputs, operator.outputs) != (1, 1):
            raise InputError(
                f"operator must take one input and give one output at each position, got {operator.inputs} and "
                f"{operator.outputs}. Measure it as it is, or write its readouts into its outputs."
            )
        self.operator = operator
        self.length, self.dtype, self.device = operator.length, operator.dtype, operator.device
        self.batch_shape, self.outputs = operator.batch_shape[:-1], operator.batch_shape[-1]

    def dense(self) -> Tensor:
        """All readouts of each position, one after another.

        Returns:
            (..., L, r, L).
        """
        return self.operator.dense().movedim(-3, -2)

    def columns(self, first: int, last: int) -> Tensor:
        """What some positions pass on to all readouts of themselves and of all later ones, (..., L − first, r, …)."""
        return self.operator.columns(first, last).movedim(-3, -2)

    def apply(self, inputs: Tensor) -> Tensor:
        """All readouts of one input by stepping.

        Args:
            inputs: (..., L, channels).

        Returns:
            (..., L, r, channels).
        """
        each = inputs[..., None, :, :].expand(*self.operator.batch_shape, *inputs.shape[-2:])
        return self.operator.apply(each).movedim(-3, -2)

    def state_size(self) -> Tensor:
        """Theoretical state-size of all readouts: what is stored once, or each state where they differ, (L,) int64."""
        held, sizes = self.operator, self.operator.state_size()
        apart = isinstance(held, Recurrence) and held.with_readouts() is None
        if isinstance(held, StateSpace):
            first = held[..., :1]
            apart = any(not torch.equal(one, of.expand_as(one)) for one, of in ((held.A, first.A), (held.B, first.B)))
        return self.outputs * sizes if apart else sizes

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all readouts have the same weights."""
        return type(self)(self.operator.weighted(weights[..., None, :]))

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return type(self)(self.operator.to(dtype, device))

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`; the readouts of an entry stay together."""
        return type(self)(self.operator[batch_index(index, self.batch_shape)])


class Stepped(Operator):
    """A recurrence of m steps per position: an input enters at each of them, and outputs are read after the last.

    At position i it has the block H_i = T[i:, :i] of all inputs of earlier positions, (L − i) × m i, whose rank is
    the smallest memory between two positions.

    Args:
        recurrence: m L steps; what it reads before the last step of a position must be 0.
        steps: m.

    Raises:
        InputError: Not a recurrence of a whole number of positions, or one that reads in between.

    Example:
        >>> one, read = torch.ones(4, 1), torch.tensor([[0.0], [1.0], [0.0], [1.0]])
        >>> Stepped(Recurrence(A=one, B=one, C=read), steps=2).dense().flatten(-2)
        tensor([[1., 1., 0., 0.],
                [1., 1., 1., 1.]])
    """

    def __init__(self, recurrence: Recurrence, steps: int) -> None:
        if recurrence.length % steps:
            raise InputError(f"recurrence must have a multiple of {steps} steps, got {recurrence.length}.")
        read = recurrence.C.reshape(*recurrence.C.shape[:-2], -1, steps, recurrence.C.shape[-1])
        if bool(read[..., :-1, :].any()):
            raise InputError(
                f"recurrence must be read after the last of {steps} steps only, got C that is not 0 before."
            )
        self.recurrence, self.steps, self.inputs = recurrence, steps, steps
        self.length, self.batch_shape = recurrence.length // steps, recurrence.batch_shape
        self.dtype, self.device = recurrence.dtype, recurrence.device

    def dense(self) -> Tensor:
        """What each input of a position adds to the outputs.

        Returns:
            (..., L, L, m).
        """
        read = self.recurrence.dense()[..., self.steps - 1 :: self.steps, :]
        return read.reshape(*read.shape[:-1], self.length, self.steps)

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`, (..., L − first, last − first, m)."""
        return self.dense().detach()[..., first:, first:last, :]

    def apply(self, inputs: Tensor) -> Tensor:
        """Outputs by stepping.

        Args:
            inputs: (..., L, m · channels), those of a position one after another.

        Returns:
            (..., L, channels).
        """
        entering = inputs.reshape(*inputs.shape[:-2], self.length * self.steps, -1)
        return self.recurrence.apply(entering)[..., self.steps - 1 :: self.steps, :]

    def state_size(self) -> Tensor:
        """Real numbers in the state at each position, (L,) int64."""
        return self.recurrence.state_size()[: self.length]

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a position have its weight."""
        return type(self)(self.recurrence.weighted(weights.repeat_interleave(self.steps, -1)), self.steps)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return type(self)(self.recurrence.to(dtype, device), self.steps)

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        return type(self)(self.recurrence[batch_index(index, self.batch_shape)], self.steps)


class DelayedRecurrence(Recurrence):
    """x_t = A_t x_{t−1} + B_t u_t, y_t = C_t x_{t−1} + D_t u_t: what is read has not been updated yet.

    A shift register is one, and so is RWKV. No Recurrence of n states is equal to it where A_t forgets what C_t reads,
    so that it is kept as the Recurrence of the pair (x_t, x_{t−1}); the second half is never carried any further, and
    its theoretical state-size is n. Diagonal transitions cost O(n) to store and to apply.

    Args:
        A: Transitions, (..., L, 1), (..., L, n) or (..., L, n, n), real as all the others.
        B: Input vectors, (..., L, n).
        C: Output vectors, (..., L, n).
        D: Feed-through, (..., L) or (..., 1).

    Raises:
        InputError: Wrong shapes or dtypes, or not finite.

    Example:
        >>> import torch
        >>> one = torch.ones(3, 1)
        >>> DelayedRecurrence(A=one / 2, B=one, C=one, D=torch.zeros(3)).dense()
        tensor([[0.0000, 0.0000, 0.0000],
                [1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000]])
    """

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
        states = B.shape[-1]
        nothing = torch.zeros_like(B)
        written, read = torch.cat([B, nothing], -1), torch.cat([torch.zeros_like(C), C], -1)
        if A.ndim == B.ndim and A.shape[-1] in (1, states):
            require_finite("A", A)
            A = A.expand(*A.shape[:-1], states)
            transition = PairTransition(A, torch.ones_like(A), torch.zeros_like(A))
            self._fill(transition, written, read, D, False)
            return
        if A.ndim != B.ndim + 1 or A.shape[-2:] != (states, states):
            raise InputError(
                f"A must have shape (..., L, 1), (..., L, {states}) or (..., L, {states}, {states}) for B {shape(B)}, "
                f"got {shape(A)}"
            )
        extended = torch.cat([A, torch.eye(states, dtype=A.dtype, device=A.device).expand_as(A)], -2)
        pair = torch.cat([extended, torch.zeros_like(extended)], -1)
        super().__init__(pair, written, read, D)

    def states(self, inputs: Tensor, positions: Sequence[int]) -> Tensor:
        """See `Recurrence.states`; of the pair, what is carried on."""
        return super().states(inputs, positions)[..., : self.B.shape[-1] // 2, :]

    def state_size(self) -> Tensor:
        """Real numbers that are carried: n at each position, (L,) int64."""
        return super().state_size() // 2
