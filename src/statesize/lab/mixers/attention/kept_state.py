"""How a cache keeps the states of heads between tokens: of their own sizes, rounded to 8 bits where that is asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 127
# The smallest positive number of float16, in which scales are kept.
_SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class KeptState:
    """Packs states (S, H, n, d_v), n the largest of the sizes of the heads, and unpacks them."""

    sizes: tuple[int, ...]  # rows that each head keeps, (H,)
    bits: int  # 8, or 0 for numbers as they are

    def pack(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept: rows (S, H, n, d_v), or (S, sum of sizes, d_v), and the scale of each, none if not rounded."""
        rows = state if self._equal else state[:, self._own_rows(state.device)]
        if not self.bits:
            return rows, rows.new_empty(0)
        scale = (rows.abs().amax(-1, keepdim=True) / _LARGEST).clamp(min=_SMALLEST_SCALE).half()
        # A scale that float16 rounds down would let the largest number of a row pass 127.
        rounded = (rows / scale).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        return rounded, scale

    def unpack(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The states that were packed, (S, H, n, d_v)."""
        rows = rows * scale.float() if self.bits else rows
        if self._equal:
            return rows
        state = rows.new_zeros(len(rows), len(self.sizes), max(self.sizes), rows.shape[-1])
        state[:, self._own_rows(rows.device)] = rows
        return state

    @property
    def _equal(self) -> bool:
        return len(set(self.sizes)) == 1

    def _own_rows(self, device: torch.device) -> Tensor:
        """Which rows of (H, n) a head has."""
        rows = torch.arange(max(self.sizes), device=device)
        return rows < torch.tensor(self.sizes, device=device)[:, None]
