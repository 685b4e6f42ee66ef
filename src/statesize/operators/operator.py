"""The causal operator: what every sequence mixer is to statesize."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, Self

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.errors import InputError


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
        """T itself, (..., L, L), lower triangular, differentiable in the operator's tensors."""

    def columns(self, first: int, last: int) -> Tensor:
        """T[first:, first:last], (..., L − first, last − first): what some positions pass on; without gradients."""
        return self.dense().detach()[..., first:, first:last]

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
        from statesize.operators.dense import Dense

        return Dense.of_causal(self.dense() * weights[..., None, :].to(self.dtype), self.state_size())

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

    def _describe(self, tensor: Tensor, length: int, batch_shape: torch.Size) -> None:
        self.length, self.batch_shape = length, batch_shape
        self.dtype, self.device = tensor.dtype.to_real(), tensor.device

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
        name, own = self._parts[0]
        chosen.batch_shape = getattr(chosen, name).shape[:-own]
        return chosen

    def _map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """The same operator of changed tensors, each given with its number of dimensions beside the batch's."""
        made = copy.copy(self)
        for name, own in self._parts:
            if (tensor := getattr(self, name)) is not None:
                setattr(made, name, function(tensor, own))
        made._describe(getattr(made, self._parts[0][0]), self.length, self.batch_shape)
        return made


def batch_index(index: object, batch_shape: torch.Size) -> tuple[Any, ...]:
    """An index that touches batch dimensions only, as a tuple without an ellipsis."""
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]  # pyright: ignore[reportUnknownArgumentType]
    if any(part is Ellipsis for part in parts):
        place = next(place for place, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (len(batch_shape) - (len(parts) - 1))
    fits = len(parts) <= len(batch_shape)
    for part, size in zip(parts, batch_shape, strict=False):
        fits &= part is not None and not isinstance(part, bool)
        fits &= not isinstance(part, Integral) or -size <= int(part) < size
    if not fits:
        raise InputError(f"index must pick from the batch shape {tuple(batch_shape)}, got {index!r}.")
    return tuple(parts)


def shared_entry(part: Tensor, own: int) -> Tensor | None:
    """What all entries of the last batch dimension have in common, or None; the last `own` dimensions are no batch."""
    first = part.select(-1 - own, 0)
    alike = part.shape[-1 - own] == 1 or torch.equal(part, first.unsqueeze(-1 - own).expand_as(part))
    return first if alike else None
