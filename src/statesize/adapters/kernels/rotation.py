"""Rotary embeddings: queries and keys of a position as they would be at another."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statesize.adapters.observation import Frame


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary embeddings of P positions: a vector x becomes x cos + J x sin in its first r channels."""

    cos: Tensor  # (P, r)
    sin: Tensor  # (P, r)
    J: Tensor  # (r, r)

    def undone(self, rotated: Tensor) -> Tensor:
        """Vectors (..., P, d) as they were before."""
        size = self.cos.shape[-1]
        turned, rest = rotated[..., :size], rotated[..., size:]
        scale = self.cos.square() + self.sin.square()
        return torch.cat([(turned * self.cos - turned @ self.J.mT * self.sin) / scale, rest], -1)

    def moved(self, rotated: Tensor, steps: Tensor) -> Tensor:
        """Vectors (..., P, d) as they would be so many positions later, (P,)."""
        size = self.cos.shape[-1]
        turned, rest = rotated[..., :size], rotated[..., size:]
        angles = (steps[:, None] * self._angle).to(rotated)
        return torch.cat([turned * angles.cos() + turned @ self.J.mT.to(rotated) * angles.sin(), rest], -1)

    def mean_ahead(self, count: int, width: int) -> Tensor:
        """The mean of the matrices of the next positions, (d, d)."""
        first, last, angle = len(self.cos), len(self.cos) + count, self._angle
        scale = (self.cos[0].square() + self.sin[0].square()).sqrt()
        angles = torch.arange(first, last, dtype=angle.dtype, device=angle.device)[:, None] * angle
        mean = torch.eye(width, dtype=self.cos.dtype, device=self.cos.device)
        size = self.cos.shape[-1]
        cos, sin = (scale * part.mean(0) for part in (angles.cos(), angles.sin()))
        mean[:size, :size] = cos.diag() + sin[:, None] * self.J
        return mean

    @property
    def _angle(self) -> Tensor:
        """By how much each channel is turned from a position to the next, (r,)."""
        return torch.atan2(self.sin[1], self.cos[1]) - torch.atan2(self.sin[0], self.cos[0])


def rotation_of(frame: Frame) -> Rotation | None:
    """Rotary embeddings that a module was called with, by the function of its own file that turns channels."""
    embeddings = frame.kwargs.get("position_embeddings")
    # Queries of a latent (MLA) are turned in their last channels.
    if embeddings is None or hasattr(frame.module, "kv_lora_rank"):
        return None
    cos, sin = (part.float().reshape(-1, part.shape[-1]) for part in embeddings)
    files = (vars(sys.modules[kind.__module__]) for kind in type(frame.module).__mro__)
    turn: Any = next((names["rotate_half"] for names in files if "rotate_half" in names), None)
    if turn is None:
        return None
    return Rotation(cos, sin, turn(torch.eye(cos.shape[-1], device=cos.device)).mT)
