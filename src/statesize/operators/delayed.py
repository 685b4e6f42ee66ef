"""Recurrences whose outputs read the state before the input is written to it."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators.recurrence import Recurrence
from statesize.operators.validation import require_rank, shape


class DelayedRecurrence(Recurrence):
    """x_t = A_t x_{t−1} + B_t u_t, y_t = C_t x_{t−1} + D_t u_t: what is read has not been updated yet.

    A shift register is one, and so is RWKV. No Recurrence of n states is equal to it where A_t forgets what C_t reads,
    so that it is kept as the Recurrence of the pair (x_t, x_{t−1}); the second half is never carried any further, and
    its theoretical state-size is n.

    Args:
        A: Transitions, (..., L, 1), (..., L, n) or (..., L, n, n), real as all the others.
        B: Input vectors, (..., L, n).
        C: Output vectors, (..., L, n).
        D: Feed-through, (..., L) or (..., 1).

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
        full = A if A.ndim == B.ndim + 1 else torch.diag_embed(A.expand(*A.shape[:-1], states))
        require_rank("A", full, B.ndim + 1, f"(..., L, 1), (..., L, n) or (..., L, n, n) for B {shape(B)}")
        kept = torch.eye(states, dtype=full.dtype, device=full.device).expand_as(full)
        pair = torch.cat([torch.cat([full, kept], -2), torch.zeros_like(torch.cat([full, kept], -2))], -1)
        nothing = torch.zeros_like(B)
        super().__init__(pair, torch.cat([B, nothing], -1), torch.cat([torch.zeros_like(C), C], -1), D)

    def state_size(self) -> Tensor:
        """Real numbers that are carried: n.

        Returns:
            (L,) int64.
        """
        return super().state_size() // 2
