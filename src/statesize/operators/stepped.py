"""Operators around others: several readouts of one stored input, several steps per position, or one input late."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.check import refuse
from statesize.errors import InputError
from statesize.operators.checked import checked_sizes
from statesize.operators.operator import Operator, batch_index
from statesize.operators.recurrence import Recurrence, forms_of
from statesize.operators.transition import FullTransition, PairTransition, Transition


class Shared(Operator):
    """r readouts y^h = T_h u of one stored input u, such as the query heads that share a key-value head.

    Its H_i^g is the stack of T_1[i:, :i] … T_r[i:, :i], r (L − i) × i, and its rank the smallest memory that serves all
    of them: at least the largest ESS of one readout, at most their sum.

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
        single = isinstance(operator, Operator) and (operator.inputs, operator.outputs) == (1, 1)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not single or not operator.batch_shape or not operator.batch_shape[-1]:
            refuse("operator", "of one input and output per position, its last batch dimension the readouts", operator)
        self.operator = operator
        self.length, self.dtype, self.device = operator.length, operator.dtype, operator.device
        self.batch_shape, self.outputs = operator.batch_shape[:-1], operator.batch_shape[-1]

    def dense(self) -> Tensor:
        """All readouts of each position, one after another, (..., L, r, L)."""
        return self.operator.dense().movedim(-3, -2)

    def one_at_a_time(self) -> Recurrence | None:
        """See `Operator.one_at_a_time`: of heads of a recurrence that share its state."""
        return self.operator.with_readouts() if isinstance(self.operator, Recurrence) else None

    def columns(self, first: int, last: int) -> Tensor:
        """What some positions pass on to all readouts of themselves and of all later ones, (..., L − first, r, …)."""
        return self.operator.columns(first, last).movedim(-3, -2)

    def apply(self, inputs: Tensor) -> Tensor:
        """All readouts, (..., L, r, channels), of one input, (..., L, channels), by stepping."""
        each = inputs[..., None, :, :].expand(*self.operator.batch_shape, *inputs.shape[-2:])
        return self.operator.apply(each).movedim(-3, -2)

    def state_size(self) -> Tensor:
        """Theoretical state-size of all readouts: what is stored once, or each state where they differ, (L,) int64."""
        sizes = self.operator.state_size()
        return sizes if self.operator.shares_state() else self.outputs * sizes

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
    the smallest memory between two positions. The recurrence has m L steps, and C = 0 before the last of a position.
    """

    def __init__(self, recurrence: Recurrence, steps: int) -> None:
        read = torch.arange(recurrence.length, device=recurrence.device) % steps == steps - 1
        if recurrence.length % steps or bool(recurrence.C[..., ~read, :].any()):
            raise InputError(f"recurrence must have a multiple of {steps} steps, read after the last of them only.")
        self.recurrence, self.steps, self.inputs = recurrence, steps, steps
        self.length, self.batch_shape = recurrence.length // steps, recurrence.batch_shape
        self.dtype, self.device = recurrence.dtype, recurrence.device

    def dense(self) -> Tensor:
        """What each input of a position adds to the outputs, (..., L, L, m)."""
        read = self.recurrence.dense()[..., self.steps - 1 :: self.steps, :]
        return read.reshape(*read.shape[:-1], self.length, self.steps)

    def one_at_a_time(self) -> Recurrence:
        """See `Operator.one_at_a_time`."""
        return self.recurrence

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`, (..., L − first, last − first, m)."""
        return self.dense().detach()[..., first:, first:last, :]

    def apply(self, inputs: Tensor) -> Tensor:
        """Outputs, (..., L, channels), by stepping; inputs (..., L, m · channels), of a position one after another."""
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
    its theoretical state-size is n. Arguments are those of `Recurrence`, all real.
    """

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
        sizes, batch = checked_sizes(forms_of(A, B, C, D))
        if A.ndim > B.ndim:
            extended = torch.cat([A, torch.eye(sizes["n"]).to(A).expand_as(A)], -2)
            transition: Transition = FullTransition(torch.cat([extended, torch.zeros_like(extended)], -1))
        else:
            A = A.expand(*A.shape[:-1], sizes["n"])
            transition = PairTransition(A, torch.ones_like(A), torch.zeros_like(A))
        written, read = torch.cat([B, torch.zeros_like(B)], -1), torch.cat([torch.zeros_like(C), C], -1)
        self._fill(transition, written, read, D, batch)

    def state_size(self) -> Tensor:
        """Real numbers that are carried: n at each position, (L,) int64."""
        return super().state_size() // 2
