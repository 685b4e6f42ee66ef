"""An operator with a matrix of its own."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.check import require_finite, require_floating, require_length, shape
from statesize.errors import InputError
from statesize.operators.operator import TensorOperator, batch_index


class Dense(TensorOperator):
    """A causal operator held as T itself.

    It keeps no recurrence, so its theoretical state is the whole past, TSS i at position i, unless its maker knows
    of a smaller one, as of a sliding window.

    Args:
        matrix: T, (..., L, L), real floating, exactly 0 above the diagonal.
        state_size: TSS at each position, (L,) integers from 0 to i; None for i.

    Raises:
        InputError: Wrong shape or dtype, not causal, or not finite; a state-size that no cache of the past has.

    Example:
        >>> import torch
        >>> Dense(torch.eye(3)).state_size()
        tensor([0, 1, 2])
    """

    def __init__(self, matrix: Tensor, state_size: Tensor | None = None) -> None:
        require_floating("matrix", matrix)
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
            raise InputError(f"matrix must have shape (..., L, L), got {shape(matrix)}")
        require_length("matrix", matrix, -1)
        require_finite("matrix", matrix)
        above = matrix.triu(1)
        if bool(above.any()):
            index = tuple(int(k) for k in above.nonzero()[0])
            raise InputError(
                f"matrix must be causal (0 above the diagonal), got {above[index].item():.3g} at index {index}; "
                "use matrix.tril() if what lies above is not meant"
            )
        self._hold(matrix, None if state_size is None else _checked_state_size(state_size, matrix.shape[-1]))

    @classmethod
    def of_causal(cls, matrix: Tensor, state_size: Tensor | None = None) -> Self:
        """The operator of a T that is known to be causal, of which only its numbers are checked.

        Args:
            matrix: T, as for the class.
            state_size: As for the class.

        Returns:
            The operator.

        Raises:
            InputError: Not finite.
        """
        require_finite("matrix", matrix)
        operator = cls.__new__(cls)
        operator._hold(matrix, state_size)
        return operator

    def _hold(self, matrix: Tensor, state_size: Tensor | None) -> None:
        self.matrix, self._state_size = matrix, state_size
        self._describe(matrix, matrix.shape[-1], matrix.shape[:-2])

    def dense(self) -> Tensor:
        """The matrix itself.

        Returns:
            T, (..., L, L).
        """
        return self.matrix

    def columns(self, first: int, last: int) -> Tensor:
        """See `Operator.columns`; the rest of T is not formed."""
        return self.matrix.detach()[..., first:, first:last]

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, one row of T at a time."""
        rows = [self.matrix[..., t : t + 1, : t + 1] @ inputs[..., : t + 1, :] for t in range(self.length)]
        return torch.cat(rows, -2)

    def state_size(self) -> Tensor:
        """The number of past positions, since a bare matrix keeps nothing smaller, or the argument.

        Returns:
            (L,) int64, at most i at position i.
        """
        if self._state_size is not None:
            return self._state_size.to(self.device)
        return torch.arange(self.length, device=self.device)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return self.of_causal(self.matrix.to(device=device, dtype=dtype), self._state_size)

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        return self.of_causal(self.matrix[batch_index(index, self.batch_shape)], self._state_size)


def _checked_state_size(state_size: Tensor, length: int) -> Tensor:
    if state_size.dtype.is_floating_point or state_size.dtype.is_complex or state_size.shape != (length,):
        raise InputError(
            f"state_size must hold {length} integers, got shape {shape(state_size)} and dtype {state_size.dtype}"
        )
    sizes = state_size.to(torch.int64)
    beyond = (sizes < 0) | (sizes > torch.arange(length, device=sizes.device))
    if bool(beyond.any()):
        index = int(beyond.nonzero()[0])
        raise InputError(
            f"state_size must lie between 0 and i at each position i, got {int(sizes[index])} at position {index}"
        )
    return sizes
