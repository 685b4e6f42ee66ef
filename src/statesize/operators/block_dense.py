"""Causal operators of several inputs and outputs at each position, held as T itself."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.operators.checked import checked_sizes, kept_numbers
from statesize.operators.operator import Dense, TensorOperator, require_causal


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
        sizes, batch = checked_sizes({"matrix": (matrix, "L q L p")})
        position = torch.arange(sizes["L"], device=matrix.device)
        require_causal(matrix, matrix.masked_fill(position[:, None, None, None] >= position[:, None], 0))
        self.matrix, self.inputs, self.outputs = matrix, sizes["p"], sizes["q"]
        self._describe(matrix, sizes["L"], batch)
        self._state_size = kept_numbers(state_size, self.inputs * position)

    def dense(self) -> Tensor:
        """T with the inputs of a position side by side, and its outputs below each other, (..., L q, L p)."""
        return self.matrix.flatten(-4, -3).flatten(-2)

    def apply(self, inputs: Tensor) -> Tensor:
        """All outputs, (..., L q, channels), of all inputs, (..., L p, channels)."""
        return self.dense() @ inputs

    def one_at_a_time(self) -> Dense:
        """The same blocks of a T with one input and one output per step, and as many steps per position as ports."""
        steps = max(self.inputs, self.outputs)
        matrix = pad(self.matrix, (0, steps - self.inputs, 0, 0, 0, steps - self.outputs))
        # What enters and leaves at one position lies in no block.
        return Dense.of_causal(matrix.flatten(-4, -3).flatten(-2).tril())

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a position have its weight."""
        return type(self)(self.matrix * weights[..., None, None, :, None].to(self.dtype), self._state_size)
