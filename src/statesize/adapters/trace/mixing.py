"""T of a module, of all its units, between two tensors of a run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from statesize.adapters.kernels.plain_attention import Softmax
from statesize.adapters.trace.channels import Channels
from statesize.adapters.trace.choose import Around
from statesize.adapters.trace.replay import Piece
from statesize.adapters.trace.run import ROUNDING
from statesize.codes import Code, Note
from statesize.errors import ModelError


@dataclass(frozen=True, eq=False)
class TracedMixing:
    """T of a module.

    Attributes:
        piece: The operations that T is made of.
        channels: Its units.
        around: How far positions are mixed around T.
        factors: The other factors of products with its values in which it could begin as well.
        softmax: The softmax over the positions whose weights T is made of; None where there is none.
        dtype: That of the run.
    """

    piece: Piece
    channels: Channels
    around: Around
    factors: Collection[int]
    softmax: Softmax | None
    dtype: torch.dtype

    @property
    def in_double(self) -> bool:
        """Whether it was run in float64."""
        return self.dtype is torch.float64

    @cached_property
    def values(self) -> Tensor:
        """What T acts on, (S, unit, L, P)."""
        return self.channels.by_unit(self.piece.held, self.channels.source).double()

    @cached_property
    def mixed(self) -> Tensor:
        """What becomes of it, (S, unit, L, P): T values + offset."""
        return self.channels.by_unit(self.piece.ended, self.channels.target).double()

    @cached_property
    def offset(self) -> Tensor:
        """What becomes of zeros, (S, unit, L, P)."""
        return self.channels.by_unit(self.piece.offset, self.channels.target).double()

    @cached_property
    def matrix(self) -> Tensor:
        """T, (S, unit, L, L)."""
        first = self.channels.target[..., 0]
        columns = self.piece.columns(first.flatten())  # (L, L, S units): of each impulse
        T = columns.permute(2, 1, 0).double().contiguous().view(*first.shape, *columns.shape[:2])
        if float(T.triu(1).abs_().amax()) > ROUNDING[self.dtype] * float(T.abs().amax()):
            raise ModelError(Note(Code.LOOKS_AHEAD))
        return T.tril_()

    def forget(self) -> None:
        """Drop T until its next use."""
        vars(self).pop("matrix", None)

    def respond(self, values: Tensor) -> Tensor:
        """What becomes of other values, by the operations of the run."""
        start = self.piece.held.clone()
        start[:, self.channels.source] = values.to(start.dtype).permute(2, 0, 1, 3)
        return self.channels.by_unit(self.piece.by_position(start), self.channels.target)
