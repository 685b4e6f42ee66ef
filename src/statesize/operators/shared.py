"""Several readouts of one stored input: what a group of heads reads."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.errors import InputError
from statesize.operators.operator import Operator, batch_index
from statesize.operators.recurrence import Recurrence


class Shared(Operator):
    """r readouts y^h = T_h u of one stored input u, such as the query heads that share a key-value head.

    Its H_i^g is the stack of T_1[i:, :i] … T_r[i:, :i], r (L − i) × i, and its rank the smallest memory that serves all
    of them: at least the largest ESS of one readout, at most their sum. Counted one by one, shared numbers are counted
    again for each.

    Args:
        operator: Any operator; its last batch dimension counts the readouts.

    Raises:
        InputError: Not an operator, or one without a batch dimension or without readouts.

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
        self.operator = operator

    @property
    def readouts(self) -> int:
        """How many outputs read the stored input, r."""
        return self.operator.batch_shape[-1]

    @property
    def length(self) -> int:
        """Sequence length L."""
        return self.operator.length

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions without that of the readouts."""
        return self.operator.batch_shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """Real floating dtype of T."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.operator.device

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
        return self.readouts * sizes if apart else sizes

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        return type(self)(self.operator.to(dtype, device))

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`; the readouts of an entry stay together."""
        return type(self)(self.operator[batch_index(index, self.batch_shape)])
