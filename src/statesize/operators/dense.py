"""Causal operators held as T itself."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.check import require_finite, shape
from statesize.errors import InputError
from statesize.operators.checked import checked_sizes, kept_numbers
from statesize.operators.operator import TensorOperator


class Dense(TensorOperator):
    """A causal operator held as T itself.

    It keeps no recurrence, so its theoretical state is the whole past, TSS i at position i, unless its maker knows
    of a smaller one, as of a sliding window.

    Args:
        matrix: T, (..., L, L), real floating, exactly 0 above the diagonal.
        state_size: TSS at each position, (L,) integers, of which at most i count at position i; None for i.

    Raises:
        InputError: Wrong shape or dtype, not causal, or not finite.

    Example:
        >>> import torch
        >>> Dense(torch.eye(3)).state_size()
        tensor([0, 1, 2])
    """

    _parts = (("matrix", 2),)

    def __init__(self, matrix: Tensor, state_size: Tensor | None = None) -> None:
        sizes, _ = checked_sizes({"matrix": (matrix, "L L")})
        _require_causal(matrix, matrix.triu(1))
        self._fill(matrix, kept_numbers(state_size, torch.arange(sizes["L"], device=matrix.device)))

    @classmethod
    def of_causal(cls, matrix: Tensor, state_size: Tensor | None = None) -> Self:
        """The operator of a T that is known to be causal, of which only its numbers are checked to be finite."""
        require_finite("matrix", matrix)
        operator = cls.__new__(cls)
        operator._fill(matrix, state_size)
        return operator

    def _fill(self, matrix: Tensor, state_size: Tensor | None) -> None:
        self.matrix, length = matrix, matrix.shape[-1]
        self._describe(matrix, length, matrix.shape[:-2])
        self._state_size = torch.arange(length, device=self.device) if state_size is None else state_size

    def dense(self) -> Tensor:
        """The matrix itself, (..., L, L)."""
        return self.matrix

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, one row of T at a time."""
        rows = [self.matrix[..., t : t + 1, : t + 1] @ inputs[..., : t + 1, :] for t in range(self.length)]
        return torch.cat(rows, -2)

    def state_size(self) -> Tensor:
        """The number of past positions, since a bare matrix keeps nothing smaller, or the argument, (L,) int64."""
        return self._state_size.to(self.device)


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
        length = sizes["L"]
        earlier = torch.ones(length, length, dtype=torch.bool, device=matrix.device).tril()
        _require_causal(matrix, matrix.masked_fill(earlier[:, None, :, None], 0))
        self.matrix, self.inputs, self.outputs = matrix, sizes["p"], sizes["q"]
        self._describe(matrix, length, batch)
        self._state_size = kept_numbers(state_size, self.inputs * torch.arange(length, device=self.device))

    def dense(self) -> Tensor:
        """T with the inputs of a position side by side, and its outputs below each other, (..., L q, L p)."""
        return self.matrix.flatten(-4, -3).flatten(-2)

    def columns(self, first: int, last: int) -> Tensor:
        """The columns of some positions, from their first rows on, (..., (L − first) q, (last − first) p)."""
        return self.matrix.detach()[..., first:, :, first:last, :].flatten(-4, -3).flatten(-2)

    def apply(self, inputs: Tensor) -> Tensor:
        """All outputs, (..., L q, channels), of all inputs, (..., L p, channels)."""
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


def _require_causal(matrix: Tensor, later: Tensor) -> None:
    """Refuse a matrix whose entries of later inputs, the others set to 0, are not all 0."""
    if bool(later.any()):
        index = tuple(int(k) for k in later.nonzero()[0])
        raise InputError(
            f"matrix must be causal, 0 where an input is later than the output, got {later[index].item():.3g} at index "
            f"{index} of shape {shape(matrix)}. Use matrix.tril() if what lies above the diagonal is not meant."
        )
