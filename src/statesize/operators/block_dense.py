"""A causal operator of several inputs and outputs at each position, held as a matrix."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.check import require_finite, require_floating, require_length, shape
from statesize.errors import InputError
from statesize.operators.operator import Dense, TensorOperator


class BlockDense(TensorOperator):
    """A map whose T[i, j] are matrices: q outputs of position i, and p inputs of position j.

    At position i it has the block H_i = T[i:, :i] of all outputs and inputs, q (L − i) × p i. The derivative of a layer
    without a T is such a map, and so is a convolution that mixes channels.

    Args:
        matrix: (..., L, q, L, p), real floating, exactly 0 where an input is later than the output.
        state_size: Numbers that are kept at each position, (L,) integers; None for all earlier inputs.

    Raises:
        InputError: Wrong shape or dtype, not causal, or not finite.

    Example:
        >>> import torch
        >>> from statesize import measure
        >>> identity = torch.eye(2).expand(4, 4, 2, 2) * torch.ones(4, 4).tril()[..., None, None]
        >>> running_sums = BlockDense(identity.transpose(1, 2))
        >>> measure(running_sums).count.squeeze(-1)
        tensor([2, 2, 2])
    """

    _parts = (("matrix", 4),)

    def __init__(self, matrix: Tensor, state_size: Tensor | None = None) -> None:
        require_floating("matrix", matrix)
        if matrix.ndim < 4 or matrix.shape[-4] != matrix.shape[-2]:
            raise InputError(f"matrix must have shape (..., L, q, L, p), got {shape(matrix)}")
        require_length("matrix", matrix, -2)
        require_finite("matrix", matrix)
        length = matrix.shape[-2]
        later = torch.ones(length, length, dtype=torch.bool, device=matrix.device).triu(1)
        if bool(matrix.movedim(-3, -2)[..., later, :, :].any()):
            raise InputError("matrix must be causal: 0 where an input is later than the output")
        self.matrix = matrix
        everything = matrix.shape[-1] * torch.arange(length, device=matrix.device)
        kept = everything if state_size is None else torch.as_tensor(state_size).to(everything)
        self._state_size = torch.minimum(kept, everything)
        self.inputs, self.outputs = matrix.shape[-1], matrix.shape[-3]
        self._describe(matrix, length, matrix.shape[:-4])

    def dense(self) -> Tensor:
        """T with the inputs of a position side by side, and its outputs below each other.

        Returns:
            (..., L q, L p), block lower triangular; (..., L, L) for one input and one output.
        """
        return self.matrix.flatten(-4, -3).flatten(-2)

    def columns(self, first: int, last: int) -> Tensor:
        """The columns of some positions, from their first rows on, (..., (L − first) q, (last − first) p)."""
        return self.matrix.detach()[..., first:, :, first:last, :].flatten(-4, -3).flatten(-2)

    def apply(self, inputs: Tensor) -> Tensor:
        """All outputs of all inputs.

        Args:
            inputs: (..., L p, channels), the p inputs of a position below each other.

        Returns:
            (..., L q, channels).
        """
        return self.dense() @ inputs

    def state_size(self) -> Tensor:
        """Numbers that are kept at each position, of all inputs together, (L,) int64."""
        return self._state_size.to(self.device)

    def one_at_a_time(self) -> Dense:
        """The same blocks of a T with one input and one output per step, and as many steps per position as ports."""
        steps = max(self.inputs, self.outputs)
        padding = (0, steps - self.inputs, 0, 0, 0, steps - self.outputs)
        matrix = torch.nn.functional.pad(self.matrix, padding)
        # What enters and leaves at one position lies in no block.
        return Dense.of_causal(matrix.flatten(-4, -3).flatten(-2).tril())

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a position have its weight."""
        return type(self)(self.matrix * weights[..., None, None, :, None].to(self.dtype), self._state_size)
