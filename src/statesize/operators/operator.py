"""The causal operator: what every sequence mixer is to statesize, and the one with a matrix of its own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, Self

import torch
from torch import Tensor

from statesize.check import require_finite, require_floating, require_length, shape
from statesize.errors import InputError
from statesize.io.text import facts_table


class Operator(ABC):
    """A causal linear map y = T u over a sequence, one lower-triangular T (L, L) per batch entry.

    Subclasses hold tensors with leading batch dimensions and never change after construction. T may have been
    computed from an input (attention, gated recurrences) or not (convolutions): an operator is T at one input.

    A subclass sets the attributes and implements the abstract methods; `statesize.testing.OperatorContract` tests both.

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
        """T itself, (..., L, L), lower triangular, differentiable in the operator's tensors.

        What overflows on the way is infinite or NaN; `measure` refuses it.
        """

    def columns(self, first: int, last: int) -> Tensor:
        """T[first:, first:last]: what some positions pass on to themselves and to all later ones; without gradients.

        Args:
            first: The first column.
            last: One past the last.

        Returns:
            (..., L − first, last − first).
        """
        return self.dense().detach()[..., first:, first:last]

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping through the sequence.

        Args:
            inputs: (..., L, channels); every channel is mapped by the same T.

        Returns:
            (..., L, channels).
        """

    @abstractmethod
    def state_size(self) -> Tensor:
        """Theoretical state-size at each position, (L,) int64: real numbers per channel that its recurrence holds."""

    @abstractmethod
    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """The same operator in another dtype or on another device.

        Args:
            dtype: Real floating dtype, or None to keep it; a complex state takes the matching complex dtype.
            device: Device, or None to keep it.

        Returns:
            An operator; its tensors are shared where nothing changes.
        """

    @abstractmethod
    def __getitem__(self, index: object) -> Self:
        """The operators at some batch entries.

        Args:
            index: Anything that indexes the batch dimensions: integers, slices, tensors.

        Returns:
            An operator with the indexed batch shape.
        """

    def weighted(self, weights: Tensor) -> Operator:
        """T diag(w): every column of T times a weight, such as the norm of what enters there (Kobayashi et al. 2020).

        Args:
            weights: w, (..., L), which expands to the batch shape.

        Returns:
            An operator of the same length, state size and dtype, in which its T is rounded; `measure(weights=...)`
            makes it in float64.

        Example:
            >>> Dense(torch.ones(2, 2).tril()).weighted(torch.tensor([0.0, 3.0])).dense()
            tensor([[0., 0.],
                    [0., 3.]])
        """
        return Dense.of_causal(self.dense() * weights[..., None, :].to(self.dtype), self.state_size())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length={self.length}, batch_shape={tuple(self.batch_shape)}, dtype={self.dtype})"

    def _repr_html_(self) -> str:
        """Its facts, for notebooks; T is not built for it."""
        facts = {
            "length": self.length,
            "batch shape": tuple(self.batch_shape),
            "theoretical state-size, largest": int(self.state_size().max()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device,
        }
        return facts_table(f"{type(self).__name__} operator", facts)


class TensorOperator(Operator):
    """An operator of tensors that its constructor checked; what follows from them is made without another check.

    A constructor calls `_describe`. `_parts` names the tensors, each with its number of dimensions beside the batch's,
    and `_derived` what was computed from them, None until it is needed.
    """

    _parts: tuple[tuple[str, int], ...]
    _derived: tuple[str, ...] = ()

    def _describe(self, tensor: Tensor, length: int, batch_shape: torch.Size) -> None:
        self.length, self.batch_shape = length, batch_shape
        self.dtype, self.device = tensor.dtype.to_real(), tensor.device

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`."""
        if dtype in (None, self.dtype) and (device is None or torch.device(device) == self.device):
            return self
        moved = self._each(lambda part, _: part.to(device=device, dtype=dtype))
        if torch.finfo(moved.dtype).max < torch.finfo(self.dtype).max:
            for name, _ in self._parts:
                if (tensor := getattr(moved, name)) is not None:
                    require_finite(name, tensor)
        return moved

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        entries, whole = batch_index(index, self.batch_shape), self.batch_shape
        chosen = self._each(lambda part, own: part.expand(whole + part.shape[part.ndim - own :])[entries])
        name, own = self._parts[0]
        chosen.batch_shape = getattr(chosen, name).shape[:-own]
        return chosen

    def _each(self, change: Callable[[Tensor, int], Tensor]) -> Self:
        """The same operator of changed tensors, each given with its number of dimensions beside the batch's."""
        made = copy.copy(self)
        for name, own in self._parts:
            if (tensor := getattr(self, name)) is not None:
                setattr(made, name, change(tensor, own))
        for name in self._derived:
            setattr(made, name, None)
        made._describe(getattr(made, self._parts[0][0]), self.length, self.batch_shape)
        return made


def batch_index(index: object, batch_shape: torch.Size) -> tuple[Any, ...]:
    """An index that touches batch dimensions only, as a tuple without an ellipsis."""
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]  # pyright: ignore[reportUnknownArgumentType]
    if any(part is None or isinstance(part, bool) for part in parts):
        raise InputError(f"an operator is indexed by integers, slices and tensors, got {index!r}")
    for dimension, part in enumerate(parts):
        if part is Ellipsis:
            missing = len(batch_shape) - (len(parts) - 1)
            parts[dimension : dimension + 1] = [slice(None)] * missing
            break
    if len(parts) > len(batch_shape):
        raise InputError(
            f"{len(parts)} indices for batch shape {tuple(batch_shape)}; only batch dimensions can be indexed"
        )
    for part, size in zip(parts, batch_shape, strict=False):
        if isinstance(part, Integral) and not -size <= int(part) < size:
            raise InputError(f"index {part} is out of range for batch shape {tuple(batch_shape)}")
    return tuple(parts)


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

    _parts = (("matrix", 2),)

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
        self.matrix = matrix
        self._state_size = None if state_size is None else _checked_state_size(state_size, matrix.shape[-1])
        self._describe(matrix, matrix.shape[-1], matrix.shape[:-2])

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
        operator.matrix, operator._state_size = matrix, state_size
        operator._describe(matrix, matrix.shape[-1], matrix.shape[:-2])
        return operator

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


def _checked_state_size(state_size: Tensor, length: int) -> Tensor:
    state_size = torch.as_tensor(state_size)
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
