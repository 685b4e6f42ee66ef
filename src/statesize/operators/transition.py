"""The state transitions A_t of a recurrence, each in the form that costs least to apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class DiagonalTransition:
    """A_t = Diag(decay_t), or decay_t · I."""

    decay: Tensor  # (..., L, n) or (..., L, 1)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., n, m)."""
        return self.decay[..., t, :, None] * state

    def recede(self, t: int, rows: Tensor) -> Tensor:
        """Y A_t for Y (..., m, n)."""
        return rows * self.decay[..., t, None, :]

    def gain(self) -> Tensor:
        """‖A_t‖₂, (..., L)."""
        return self.decay.abs().amax(-1)

    def matrix(self) -> Tensor:
        """A in its stored shape: (..., L, 1) or (..., L, n)."""
        return self.decay

    def map(self, function: Callable[[Tensor], Tensor]) -> DiagonalTransition:
        """The same form with a function applied to its tensors."""
        return DiagonalTransition(function(self.decay))

    def spaced(self, steps: int) -> DiagonalTransition:
        """With so many steps for each, all but the first of which leave the state as it is."""
        return DiagonalTransition(spaced(self.decay, steps, 1))


@dataclass(frozen=True, eq=False)
class FullTransition:
    """A_t any matrix."""

    full: Tensor  # (..., L, n, n)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., n, m)."""
        return self.full[..., t, :, :] @ state

    def recede(self, t: int, rows: Tensor) -> Tensor:
        """Y A_t for Y (..., m, n)."""
        return rows @ self.full[..., t, :, :]

    def gain(self) -> Tensor:
        """An upper bound on ‖A_t‖₂, (..., L): sqrt(‖A_t‖₁ ‖A_t‖_∞), or ‖A_t‖_F where that is smaller."""
        size = self.full.abs()
        mixed = (size.sum(-1).amax(-1) * size.sum(-2).amax(-1)).sqrt()
        return torch.minimum(mixed, size.square().sum((-2, -1)).sqrt())

    def matrix(self) -> Tensor:
        """A, (..., L, n, n)."""
        return self.full

    def map(self, function: Callable[[Tensor], Tensor]) -> FullTransition:
        """The same form with a function applied to its tensors."""
        return FullTransition(function(self.full))

    def spaced(self, steps: int) -> FullTransition:
        """With so many steps for each, all but the first of which leave the state as it is."""
        identity = torch.eye(self.full.shape[-1], dtype=self.full.dtype, device=self.full.device)
        full = spaced(self.full.flatten(-2), steps, identity.flatten())
        return FullTransition(full.reshape(*full.shape[:-1], *identity.shape))


@dataclass(frozen=True, eq=False)
class DeltaTransition:
    """A_t = (I − beta_t k_t k_tᵀ) Diag(decay_t): forget what was stored under k_t."""

    key: Tensor  # (..., L, n)
    beta: Tensor  # (..., L, 1)
    decay: Tensor  # (..., L, n) or (..., L, 1)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., n, m)."""
        k = self.key[..., t, :]
        decayed = self.decay[..., t, :, None] * state
        return decayed - (self.beta[..., t, :] * k)[..., :, None] * (k[..., None, :] @ decayed)

    def recede(self, t: int, rows: Tensor) -> Tensor:
        """Y A_t for Y (..., m, n)."""
        k = self.key[..., t, :]
        erased = rows - (rows @ (self.beta[..., t, :] * k)[..., :, None]) * k[..., None, :]
        return erased * self.decay[..., t, None, :]

    def gain(self) -> Tensor:
        """An upper bound on ‖A_t‖₂, (..., L)."""
        erase = (1 - self.beta.squeeze(-1) * self.key.square().sum(-1)).abs()
        return torch.clamp(erase, min=1) * self.decay.abs().amax(-1)

    def matrix(self) -> Tensor:
        """A, (..., L, n, n)."""
        identity = torch.eye(self.key.shape[-1], dtype=self.key.dtype, device=self.key.device)
        erase = identity - (self.beta * self.key)[..., :, None] * self.key[..., None, :]
        return erase * self.decay[..., None, :]

    def map(self, function: Callable[[Tensor], Tensor]) -> DeltaTransition:
        """The same form with a function applied to its tensors."""
        return DeltaTransition(function(self.key), function(self.beta), function(self.decay))

    def spaced(self, steps: int) -> DeltaTransition:
        """With so many steps for each, all but the first of which leave the state as it is."""
        return DeltaTransition(spaced(self.key, steps), spaced(self.beta, steps), spaced(self.decay, steps, 1))


@dataclass(frozen=True, eq=False)
class RankOneTransition:
    """A_t = Diag(decay_t) + column_t row_tᵀ, real."""

    decay: Tensor  # (..., L, n) or (..., L, 1)
    column: Tensor  # (..., L, n)
    row: Tensor  # (..., L, n)

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., n, m)."""
        read = self.row[..., t, None, :] @ state
        return self.decay[..., t, :, None] * state + self.column[..., t, :, None] * read

    def recede(self, t: int, rows: Tensor) -> Tensor:
        """Y A_t for Y (..., m, n)."""
        read = rows @ self.column[..., t, :, None]
        return rows * self.decay[..., t, None, :] + read * self.row[..., t, None, :]

    def gain(self) -> Tensor:
        """An upper bound on ‖A_t‖₂, (..., L), and on a quarter of what its round-off is made of."""
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

    def map(self, function: Callable[[Tensor], Tensor]) -> RankOneTransition:
        """The same form with a function applied to its tensors."""
        return RankOneTransition(function(self.decay), function(self.column), function(self.row))

    def spaced(self, steps: int) -> RankOneTransition:
        """With so many steps for each, all but the first of which leave the state as it is."""
        return RankOneTransition(spaced(self.decay, steps, 1), spaced(self.column, steps), spaced(self.row, steps))


@dataclass(frozen=True, eq=False)
class PairTransition:
    """A_t = [[Diag(decay_t), 0], [Diag(copied_t), Diag(kept_t)]]: a diagonal state, and what is read of it later."""

    decay: Tensor  # (..., L, n) or (..., L, 1), as the others
    copied: Tensor  # from the first half to the second
    kept: Tensor  # of the second half

    def advance(self, t: int, state: Tensor) -> Tensor:
        """A_t X for X (..., 2n, m)."""
        return paired(self.decay[..., t, :], self.copied[..., t, :], self.kept[..., t, :], state)

    def recede(self, t: int, rows: Tensor) -> Tensor:
        """Y A_t for Y (..., m, 2n)."""
        first, second = rows.chunk(2, -1)
        moved = first * self.decay[..., t, None, :] + second * self.copied[..., t, None, :]
        return torch.cat([moved, second * self.kept[..., t, None, :]], -1)

    def gain(self) -> Tensor:
        """An upper bound on ‖A_t‖₂, (..., L): the largest Frobenius norm of a pair's 2 × 2 block."""
        return (self.decay.square() + self.copied.square() + self.kept.square()).sqrt().amax(-1)

    def matrix(self) -> Tensor:
        """A, (..., L, 2n, 2n)."""
        upper, copied, kept = (torch.diag_embed(part) for part in (self.decay, self.copied, self.kept))
        return torch.cat([torch.cat([upper, torch.zeros_like(upper)], -1), torch.cat([copied, kept], -1)], -2)

    def map(self, function: Callable[[Tensor], Tensor]) -> PairTransition:
        """The same form with a function applied to its tensors."""
        return PairTransition(function(self.decay), function(self.copied), function(self.kept))

    def spaced(self, steps: int) -> PairTransition:
        """With so many steps for each, all but the first of which leave the state as it is."""
        return PairTransition(spaced(self.decay, steps, 1), spaced(self.copied, steps), spaced(self.kept, steps, 1))


Transition = DiagonalTransition | FullTransition | DeltaTransition | RankOneTransition | PairTransition


def paired(decay: Tensor, copied: Tensor, kept: Tensor, state: Tensor) -> Tensor:
    """One step of a PairTransition: A X for X (..., 2n, m), with A's diagonals (..., n)."""
    first, second = state.chunk(2, -2)
    return torch.cat([decay[..., None] * first, copied[..., None] * first + kept[..., None] * second], -2)


def spaced(part: Tensor, steps: int, filling: Tensor | float = 0) -> Tensor:
    """Entries (..., L, k) with steps − 1 others after each, (..., L · steps, k)."""
    between = torch.zeros_like(part)[..., None, :].expand(*part.shape[:-1], steps - 1, -1) + filling
    return torch.cat([part[..., None, :], between], -2).flatten(-3, -2)


CHUNK = 16
"""Tokens of a chunk."""


def chunk_states(decay: Tensor, B: Tensor, inputs: Tensor) -> list[Tensor]:
    """The state after each chunk, (..., n, channels): decays (..., L, n) or (..., L, 1), inputs (..., L, channels)."""
    decay, B, inputs = _in_chunks(decay, 1.0), _in_chunks(B), _in_chunks(inputs)
    # a_{t+1} … a_end; logarithms would be infinite where a decay is 0.
    after = pad(decay[..., 1:, :], (0, 0, 0, 1), value=1.0).flip(-2).cumprod(-2).flip(-2)
    added, whole = (after * B).mT @ inputs, (after[..., 0, :] * decay[..., 0, :])[..., None]
    states = [added[..., 0, :, :]]
    for chunk in range(1, added.shape[-3]):
        states.append(whole[..., chunk, :, :] * states[-1] + added[..., chunk, :, :])
    return states


def chunk_outputs(decay: Tensor, B: Tensor, C: Tensor, inputs: Tensor) -> Tensor:
    """y_t = C_t x_t, (..., L, channels), where one number decays all of the state: decays (..., L, 1)."""
    states = chunk_states(decay, B, inputs)
    before = torch.stack([torch.zeros_like(states[0]), *states[:-1]], -3)
    length = inputs.shape[-2]
    decay, B, C, inputs = _in_chunks(decay, 1.0).squeeze(-1), _in_chunks(B), _in_chunks(C), _in_chunks(inputs)
    # a_{s+1} … a_t for s ≤ t.
    row, rows = torch.zeros_like(decay), list[Tensor]()
    for t in range(CHUNK):
        row = row * decay[..., t, None]
        row[..., t] = 1
        rows.append(row)
    inside = (C @ B.mT * torch.stack(rows, -2)) @ inputs
    outputs = inside + decay.cumprod(-1)[..., None] * (C @ before)
    return outputs.flatten(-3, -2)[..., :length, :]


def _in_chunks(part: Tensor, fill: float = 0.0) -> Tensor:
    missing = -part.shape[-2] % CHUNK
    part = pad(part, (0, 0, 0, missing), value=fill) if missing else part
    return part.reshape(*part.shape[:-2], part.shape[-2] // CHUNK, CHUNK, part.shape[-1])
