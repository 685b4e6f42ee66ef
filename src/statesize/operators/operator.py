"""The causal operator: what every sequence mixer is to statesize."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor


class Operator(ABC):
    """A causal linear map y = T u over a sequence, one lower-triangular T (L, L) per batch entry.

    Subclasses hold tensors with leading batch dimensions and never change after construction. T may have been
    computed from an input (attention, gated recurrences) or not (convolutions): an operator is T at one input.

    A subclass must implement the abstract members; `statesize.testing.OperatorContract` checks them.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """Sequence length L."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: one T for each entry."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Real floating dtype of T."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the tensors."""

    @abstractmethod
    def dense(self) -> Tensor:
        """T itself, (..., L, L), lower triangular, differentiable in the operator's tensors."""

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping through the sequence; inputs and result (..., L, channels)."""

    @abstractmethod
    def state_size(self) -> Tensor:
        """Theoretical state-size at each position, (L,) int64: real numbers per channel that its recurrence keeps."""

    @abstractmethod
    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """The same operator in another dtype or on another device; itself where nothing changes."""

    @abstractmethod
    def __getitem__(self, index: object) -> Self:
        """The operators at some batch entries; `index` addresses batch dimensions only."""
