"""The causal operator, what every sequence mixer is to statesize, and the one that holds T itself."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, Self, cast

import torch
from torch import Tensor

from statesize.check import refuse, require_finite, shape
from statesize.errors import InputError
from statesize.operators.checked import checked_sizes, kept_numbers


class Operator(ABC):
    """A causal linear map y = T u over a sequence, one lower-triangular T (L, L) per batch entry.

    T may have been computed from an input (attention, gated recurrences) or not (convolutions): an operator is T at one
    input. A subclass holds tensors with leading batch dimensions, never changes after construction, sets the attributes
    and implements the abstract methods; `statesize.testing.OperatorContract` tests both.

    Attributes:
        length: Sequence length L.
        batch_shape: Leading dimensions, one T for each entry.
        dtype: Real floating dtype of T.
        device: Device of the tensors.
        inputs: How many numbers enter at each position.
        outputs: How many numbers leave at each position.
        by_products: Whether it is measured by hundreds of products at each position.
    """

    length: int
    batch_shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    inputs: int = 1
    outputs: int = 1
    by_products: bool = False

    @abstractmethod
    def dense(self) -> Tensor:
        """T itself, (..., L, L), lower triangular, differentiable in the operator's tensors."""

    def columns(self, first: int, last: int) -> Tensor:
        """T[first:, first:last] of all outputs and inputs there: what some positions pass on; without gradients."""
        p, q = self.inputs, self.outputs
        return self.dense().detach()[..., q * first :, p * first : p * last]

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping through the sequence: every channel of inputs (..., L, channels) is mapped by the same T."""

    @abstractmethod
    def state_size(self) -> Tensor:
        """Theoretical state-size at each position, (L,) int64: real numbers per channel that its recurrence holds."""

    @abstractmethod
    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """The same operator in another real dtype, of a complex state in the matching one, or on another device."""

    @abstractmethod
    def __getitem__(self, index: object) -> Self:
        """The operators at some batch entries, by anything that indexes the batch dimensions."""

    def weighted(self, weights: Tensor) -> Operator:
        """T diag(w): every column of T times a weight, such as the norm of what enters there (Kobayashi et al. 2020).

        Args:
            weights: w, (..., L), which expands to the batch shape.

        Returns:
            An operator of the same length, state size and dtype, in which its T is rounded.

        Example:
            >>> from statesize import Dense
            >>> Dense(torch.ones(2, 2).tril()).weighted(torch.tensor([0.0, 3.0])).dense()
            tensor([[0., 0.],
                    [0., 3.]])
        """
        return Dense.of_causal(self.dense() * weights[..., None, :].to(self.dtype), self.state_size())

    def one_at_a_time(self) -> Operator | None:
        """The same blocks by more steps of one input and one output each; None where each position is one."""
        return None

    def shares_state(self) -> bool:
        """Whether all entries of the last batch dimension store the same, which then counts once."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length={self.length}, batch_shape={tuple(self.batch_shape)}, dtype={self.dtype})"


class TensorOperator(Operator):
    """An operator of tensors that its constructor checked; what follows from them is made without another check.

    A constructor calls `_describe`; `_parts` names the tensors, each with its number of dimensions beside the batch's.
    """

    _parts: tuple[tuple[str, int], ...]
    _state_size: Tensor

    def _describe(self, tensor: Tensor, length: int, batch_shape: torch.Size) -> None:
        self.length, self.batch_shape = length, batch_shape
        self.dtype, self.device = tensor.dtype.to_real(), tensor.device

    def state_size(self) -> Tensor:
        """See `Operator.state_size`."""
        return self._state_size.to(self.device)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        if dtype in (None, self.dtype) and (device is None or torch.device(device) == self.device):
            return self
        narrower = dtype is not None and torch.finfo(dtype).max < torch.finfo(self.dtype).max

        def moved(part: Tensor, _: int) -> Tensor:
            part = part.to(device=device, dtype=dtype.to_complex() if dtype and part.is_complex() else dtype)
            if narrower:
                require_finite(f"operator in {dtype}", part)
            return part

        return self._map(moved)

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        entries, whole = batch_index(index, self.batch_shape), self.batch_shape
        chosen = self._map(lambda part, own: part.expand(whole + part.shape[part.ndim - own :])[entries])
        chosen.batch_shape = getattr(chosen, self._parts[0][0]).shape[: -self._parts[0][1]]
        return chosen

    def _map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """The same operator of changed tensors, each given with its number of dimensions beside the batch's."""
        made = copy.copy(self)
        for name, own in self._parts:
            if (tensor := getattr(self, name)) is not None:
                setattr(made, name, function(tensor, own))
        made._describe(getattr(made, self._parts[0][0]), self.length, self.batch_shape)
        return made


class Dense(TensorOperator):
    """A causal operator held as T itself.

    Args:
        matrix: T, (..., L, L), real floating, exactly 0 above the diagonal.
        state_size: TSS at each position, such as that of a sliding window, (L,) integers, of which at most i count at
            position i; None for i, the whole past, as a matrix keeps no recurrence.

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
        require_causal(matrix, matrix.triu(1))
        self._fill(matrix, kept_numbers(state_size, torch.arange(sizes["L"], device=matrix.device)))

    @classmethod
    def of_causal(cls, matrix: Tensor, state_size: Tensor | None = None) -> Self:
        """The operator of a T that is known to be causal, of which only its numbers are checked to be finite."""
        require_finite("matrix", matrix)
        return cls.__new__(cls)._fill(matrix, state_size)

    def _fill(self, matrix: Tensor, state_size: Tensor | None) -> Self:
        self.matrix, length = matrix, matrix.shape[-1]
        self._describe(matrix, length, matrix.shape[:-2])
        self._state_size = torch.arange(length, device=self.device) if state_size is None else state_size
        return self

    def dense(self) -> Tensor:
        """The matrix itself, (..., L, L)."""
        return self.matrix

    def apply(self, inputs: Tensor) -> Tensor:
        """T u, one row of T at a time."""
        rows = [self.matrix[..., t : t + 1, : t + 1] @ inputs[..., : t + 1, :] for t in range(self.length)]
        return torch.cat(rows, -2)


def batch_index(index: object, batch_shape: torch.Size) -> tuple[Any, ...]:
    """An index that touches batch dimensions only, as a tuple without an ellipsis."""
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]  # pyright: ignore[reportUnknownArgumentType]
    for place in [place for place, part in enumerate(parts) if part is Ellipsis]:
        parts[place : place + 1] = [slice(None)] * (len(batch_shape) - (len(parts) - 1))
    fits = len(parts) <= len(batch_shape) and not any(part is None or isinstance(part, bool) for part in parts)
    for part, size in zip(parts, batch_shape, strict=False):
        fits &= not isinstance(part, Integral) or -size <= int(part) < size
    if not fits:
        refuse("index", f"one of the batch shape {tuple(batch_shape)}", cast("object", index))
    return tuple(parts)


def alike(part: Tensor, own: int) -> bool:
    """Whether all entries of the last batch dimension are equal; the last `own` dimensions are no batch."""
    return part.shape[-1 - own] == 1 or torch.equal(part, part.narrow(-1 - own, 0, 1).expand_as(part))


def require_causal(matrix: Tensor, later: Tensor) -> None:
    """Refuse a matrix whose entries of later inputs, the others set to 0, are not all 0."""
    if bool(later.any()):
        index = tuple(int(k) for k in later.nonzero()[0])
        entry = f"{later[index].item():.3g} at index {index} of shape {shape(matrix)}"
        raise InputError(f"matrix must be causal, 0 where an input is later than the output, got {entry}. Use .tril().")
