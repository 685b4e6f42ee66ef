"""Recurrences whose outputs read the state before the input is written to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from statesize.check import require_finite, shape
from statesize.errors import InputError
from statesize.operators.recurrence import Recurrence
from statesize.operators.transition import PairTransition


class DelayedRecurrence(Recurrence):
    """x_t = A_t x_{t−1} + B_t u_t, y_t = C_t x_{t−1} + D_t u_t: what is read has not been updated yet.

    A shift register is one, and so is RWKV. No Recurrence of n states is equal to it where A_t forgets what C_t reads,
    so that it is kept as the Recurrence of the pair (x_t, x_{t−1}); the second half is never carried any further, and
    its theoretical state-size is n. Diagonal transitions cost O(n) to store and to apply.

    Args:
        A: Transitions, (..., L, 1), (..., L, n) or (..., L, n, n), real as all the others.
        B: Input vectors, (..., L, n).
        C: Output vectors, (..., L, n).
        D: Feed-through, (..., L) or (..., 1).

    Raises:
        InputError: Wrong shapes or dtypes, or not finite.

    Example:
        >>> import torch
        >>> one = torch.ones(3, 1)
        >>> DelayedRecurrence(A=one / 2, B=one, C=one, D=torch.zeros(3)).dense()
        tensor([[0.0000, 0.0000, 0.0000],
                [1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000]])
    """

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
        states = B.shape[-1]
        nothing = torch.zeros_like(B)
        written, read = torch.cat([B, nothing], -1), torch.cat([torch.zeros_like(C), C], -1)
        if A.ndim == B.ndim and A.shape[-1] in (1, states):
            require_finite("A", A)
            A = A.expand(*A.shape[:-1], states)
            transition = PairTransition(A, torch.ones_like(A), torch.zeros_like(A))
            self._fill(transition, written, read, D, False)
            return
        if A.ndim != B.ndim + 1 or A.shape[-2:] != (states, states):
            raise InputError(
                f"A must have shape (..., L, 1), (..., L, {states}) or (..., L, {states}, {states}) for B {shape(B)}, "
                f"got {shape(A)}"
            )
        kept = torch.cat([A, torch.eye(states, dtype=A.dtype, device=A.device).expand_as(A)], -2)
        pair = torch.cat([kept, torch.zeros_like(kept)], -1)
        super().__init__(pair, written, read, D)

    def states(self, inputs: Tensor, positions: Sequence[int]) -> Tensor:
        """See `Recurrence.states`; of the pair, what is carried on."""
        return super().states(inputs, positions)[..., : self.B.shape[-1] // 2, :]

    def state_size(self) -> Tensor:
        """Real numbers that are carried: n at each position, (L,) int64."""
        return super().state_size() // 2
