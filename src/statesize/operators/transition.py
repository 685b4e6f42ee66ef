"""The state transitions A_t of a recurrence, each in the form that costs least to apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

ONES = "decay", "kept"
"""Parts of a transition that are 1 where it leaves the state as it is; others are 0."""
_CHUNK = 16  # tokens


@dataclass(frozen=True, eq=False)
class Transition(ABC):
    """A_t for all t; `own` is how many last dimensions of its tensors are no batch."""

    own: ClassVar[int] = 2

    @abstractmethod
    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., n, m)."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """A, (..., L, n, n), or (..., L, 1) or (..., L, n) where it is diagonal."""

    def tensors(self) -> list[Tensor]:
        """What it is made of."""
        return [getattr(self, part.name) for part in fields(self)]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same form with a function applied to its tensors."""
        return type(self)(*map(function, self.tensors()))

    def spaced(self, steps: int) -> Self:
        """With so many steps for each, all but the first of which leave the state as it is."""
        return type(self)(*(spaced(getattr(self, part.name), steps, float(part.name in ONES)) for part in fields(self)))


@dataclass(frozen=True, eq=False)
class DiagonalTransition(Transition):
    """A_t = Diag(decay_t), or decay_t · I."""

    decay: Tensor  # (..., L, n) or (..., L, 1)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X."""
        return self.decay[..., t, :, None] * state

    def matrix(self) -> Tensor:
        """The decays as they are."""
        return self.decay


@dataclass(frozen=True, eq=False)
class FullTransition(Transition):
    """A_t any matrix."""

    own = 3
    full: Tensor  # (..., L, n, n)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X."""
        return self.full[..., t, :, :] @ state

    def matrix(self) -> Tensor:
        """A as it is."""
        return self.full

    def spaced(self, steps: int) -> Self:
        """See `Transition.spaced`."""
        identity = torch.eye(self.full.shape[-1], dtype=self.full.dtype, device=self.full.device)
        full = spaced(self.full.flatten(-2), steps, identity.flatten())
        return type(self)(full.reshape(*full.shape[:-1], *identity.shape))


@dataclass(frozen=True, eq=False)
class DeltaTransition(Transition):
    """A_t = (I − beta_t k_t k_tᵀ) Diag(decay_t): forget what was stored under k_t."""

    key: Tensor  # (..., L, n)
    beta: Tensor  # (..., L, 1)
    decay: Tensor  # (..., L, n) or (..., L, 1)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X."""
        k = self.key[..., t, :]
        decayed = self.decay[..., t, :, None] * state
        return decayed - (self.beta[..., t, :] * k)[..., :, None] * (k[..., None, :] @ decayed)

    def matrix(self) -> Tensor:
        """A, (..., L, n, n)."""
        identity = torch.eye(self.key.shape[-1], dtype=self.key.dtype, device=self.key.device)
        erase = identity - (self.beta * self.key)[..., :, None] * self.key[..., None, :]
        return erase * self.decay[..., None, :]


@dataclass(frozen=True, eq=False)
class RankOneTransition(Transition):
    """A_t = Diag(decay_t) + column_t row_tᵀ, real."""

    decay: Tensor  # (..., L, n) or (..., L, 1)
    column: Tensor  # (..., L, n)
    row: Tensor  # (..., L, n)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X."""
        read = self.row[..., t, None, :] @ state
        return self.decay[..., t, :, None] * state + self.column[..., t, :, None] * read

    def gain(self) -> Tensor:
        """An upper bound on ‖A_t‖₂, and on a quarter of what its round-off is made of, (..., L)."""
        # With p = ‖b‖‖c‖, ‖a I + b cᵀ‖ = (p + sqrt(p² + 4 a (a + bᵀc))) / 2: both singular values that are not |a| have
        # the product |a (a + bᵀc)| and the sum of squares 2 a² + 2 a bᵀc + p². A diagonal is its middle and half of
        # its spread.
        largest, smallest = self.decay.amax(-1), self.decay.amin(-1)
        middle, spread = (largest + smallest) / 2, (largest - smallest) / 2
        size = (self.column.square().sum(-1) * self.row.square().sum(-1)).sqrt()
        inner = (self.column * self.row).sum(-1)
        norm = (size + (size.square() + 4 * middle * (middle + inner)).clamp(min=0).sqrt()) / 2
        return torch.maximum(norm + spread, (self.decay.abs().amax(-1) + size) / 4)

    def matrix(self) -> Tensor:
        """A, (..., L, n, n)."""
        outer = self.column[..., :, None] * self.row[..., None, :]
        return torch.diag_embed(self.decay.expand(*self.decay.shape[:-1], self.row.shape[-1])) + outer


@dataclass(frozen=True, eq=False)
class PairTransition(Transition):
    """A_t = [[Diag(decay_t), 0], [Diag(copied_t), Diag(kept_t)]]: a diagonal state, and what is read of it later."""

    decay: Tensor  # (..., L, n), as the others
    copied: Tensor  # from the first half to the second
    kept: Tensor  # of the second half

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., 2n, m)."""
        (first, second), (decay, copied, kept) = state.chunk(2, -2), (part[..., t, :, None] for part in self.tensors())
        return torch.cat([decay * first, copied * first + kept * second], -2)

    def matrix(self) -> Tensor:
        """A, (..., L, 2n, 2n)."""
        upper, copied, kept = (torch.diag_embed(part) for part in self.tensors())
        return torch.cat([torch.cat([upper, torch.zeros_like(upper)], -1), torch.cat([copied, kept], -1)], -2)


def spaced(part: Tensor, steps: int, filling: Tensor | float = 0) -> Tensor:
    """Entries (..., L, k) with steps − 1 others after each, (..., L · steps, k)."""
    between = torch.zeros_like(part)[..., None, :].expand(*part.shape[:-1], steps - 1, -1) + filling
    return torch.cat([part[..., None, :], between], -2).flatten(-3, -2)


def chunk_outputs(decay: Tensor, B: Tensor, C: Tensor, inputs: Tensor) -> Tensor:
    """y_t = C_t x_t, (..., L, channels), where one number decays all of the state: decays (..., L, 1)."""
    length = inputs.shape[-2]

    def in_chunks(part: Tensor, fill: float = 0.0) -> Tensor:
        part = pad(part, (0, 0, 0, -length % _CHUNK), value=fill)
        return part.reshape(*part.shape[:-2], part.shape[-2] // _CHUNK, _CHUNK, part.shape[-1])

    a, B, C, inputs = in_chunks(decay, 1.0).squeeze(-1), in_chunks(B), in_chunks(C), in_chunks(inputs)
    # a_{s+1} … a_t for s ≤ t; logarithms would be infinite where a decay is 0.
    later = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=a.device).tril(-1)
    within, through = torch.where(later, a[..., None], 1).cumprod(-2).tril(), a.cumprod(-1)[..., None]
    added = (within[..., -1, :, None] * B).mT @ inputs
    states = [torch.zeros_like(added[..., 0, :, :] * through[..., 0, -1:, :])]
    for chunk in range(added.shape[-3] - 1):
        states.append(through[..., chunk, -1:, :] * states[-1] + added[..., chunk, :, :])
    outputs = (C @ B.mT * within) @ inputs + through * (C @ torch.stack(states, -3))
    return outputs.flatten(-3, -2)[..., :length, :]
