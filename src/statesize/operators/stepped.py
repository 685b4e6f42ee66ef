"""Recurrences of several steps a position, such as products of Householder matrices."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.operators.operator import Operator, batch_index
from statesize.operators.recurrence import Recurrence


class Stepped(Operator):
    """A recurrence of m steps a position: an input enters at each of them, and outputs are read after the last.

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
        self.recurrence, self.steps = recurrence, steps

    @property
    def length(self) -> int:
        """Number of positions L."""
        return self.recurrence.length // self.steps

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, one T for each entry."""
        return self.recurrence.batch_shape

    @property
    def dtype(self) -> torch.dtype:
        """Real floating dtype of T."""
        return self.recurrence.dtype

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.recurrence.device

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

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return type(self)(self.recurrence.to(dtype, device), self.steps)

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        return type(self)(self.recurrence[batch_index(index, self.batch_shape)], self.steps)
