"""An operator given as its matrix."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.operators.operator import Operator, batch_index
from statesize.operators.validation import require_finite, require_floating, require_length, shape


class Dense(Operator):
    """A causal operator held as T itself.

    It keeps no recurrence, so its theoretical state is the whole past: TSS i at position i.

    Args:
        matrix: T, (..., L, L), real floating, exactly 0 above the diagonal.

    Raises:
        InputError: Wrong shape or dtype, not causal, or not finite.

    Example:
        >>> import torch
        >>> Dense(torch.eye(3)).state_size()
        tensor([0, 1, 2])
    """

    def __init__(self, matrix: Tensor) -> None:
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
        self.matrix = matrix

    @property
    def length(self) -> int:
        """Sequence length L."""
        return self.matrix.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the matrix."""
        return self.matrix.shape[:-2]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Device of the matrix."""
        return self.matrix.device

    def dense(self) -> Tensor:
        """The matrix as it was given.

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
        """The number of past positions, since a bare matrix keeps nothing smaller.

        Returns:
            (L,) int64, i at position i.
        """
        return torch.arange(self.length, device=self.device)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return type(self)(self.matrix.to(device=device, dtype=dtype))

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        return type(self)(self.matrix[batch_index(index, self.batch_shape)])
