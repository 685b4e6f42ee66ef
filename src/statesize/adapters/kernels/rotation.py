"""Rotary embeddings: queries and keys of a position as they would be at another."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import torch
from torch import Tensor

from statesize.adapters.kernels.attention import Attend, replaced_attention
from statesize.adapters.models.model_state import mapped, named_parts
from statesize.adapters.observation import ModuleStack
from statesize.adapters.replaced import source_files
from statesize.adapters.watch import ArgumentCopies


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary embeddings of P positions: a vector x becomes x cos + J x sin in its first r channels."""

    cos: Tensor  # (P, r)
    sin: Tensor  # (P, r)
    J: Tensor  # (r, r)

    @classmethod
    def none(cls, query: Tensor) -> Self:
        """That of queries (…, P, d) that nothing turns."""
        nothing = query.new_zeros(query.shape[-2], 0, dtype=torch.float32)
        return cls(nothing, nothing, nothing.new_zeros(0, 0))

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

    @cached_property
    def _angle(self) -> Tensor:
        """By how much each channel is turned from a position to the next, (r,)."""
        turned = torch.atan2(self.sin, self.cos)
        turned, step = turned - turned[0], 1
        angle = turned[1]
        # Rounding of low precision would add up over positions: each farther one says more digits.
        while (step := 2 * step) < len(turned):
            rounds = ((step * angle - turned[step]) / (2 * math.pi)).round()
            angle = (turned[step] + 2 * math.pi * rounds) / step
        return angle


class _AskedError(Exception):
    """Ends a call of a layer when its queries are known."""

    def __init__(self, query: Tensor) -> None:
        self.query = query


def rotation_of(running: ModuleStack, query: Tensor) -> Rotation | None:
    """Rotary embeddings of queries (S, H, L, d) of the running module; None where nothing that is known turns them."""
    # The function of its own file turns channels. A file of transformers that names none has none, nor has a layer that
    # is called without. Layers may leave out what they are called with, or order channels in their own way: so the
    # module is called again with its embeddings in reverse, and must itself turn all queries as these say, or none.
    module, given = running.frame.module, running.frame.kwargs
    called_with: Any = given.get("position_embeddings")
    files = [vars(sys.modules[kind.__module__]) for kind in type(module).__mro__]
    if called_with is None and type(module).__module__.startswith("transformers.models."):
        names = (name for names in files for name in names)
        rotates = any("rotary" in name.lower() or name.startswith("rotate_") for name in names)
        without = "position_embeddings" in given or not rotates
        return Rotation.none(query) if without else None
    turn: Any = next((names["rotate_half"] for names in files if "rotate_half" in names), None)
    if not isinstance(called_with, tuple) or turn is None:
        return None
    embeddings = cast("tuple[Tensor, ...]", called_with)
    given = [part.float().reshape(-1, part.shape[-1])[: query.shape[-2]] for part in embeddings]
    J = turn(torch.eye(given[0].shape[-1], device=query.device)).mT
    reverse = tuple(part.flip(-2) for part in embeddings)
    asked = _queries(running, reverse)
    if asked is None or asked.shape != query.shape:
        return None
    if torch.equal(asked, query.float()):
        return Rotation.none(query)
    steps = torch.arange(query.shape[-2] - 1, -query.shape[-2], -2, device=query.device)
    # Angles are products of float32, which the model may round to its own dtype.
    rounding = 8 * query.shape[-2] * torch.finfo(torch.float32).eps + 4 * torch.finfo(embeddings[0].dtype).eps
    most = rounding * query.abs().amax((-2, -1), keepdim=True)
    # GLM and others spread the first half over pairs of neighbours.
    spread = [part[:, : part.shape[-1] // 2].repeat_interleave(2, -1) for part in given]
    for cos, sin in (given, spread):
        rotation = Rotation(cos, sin, J)
        if bool(((rotation.moved(query, steps) - asked).abs() <= most).all()):
            return rotation
    return None


def _queries(running: ModuleStack, embeddings: tuple[Tensor, ...]) -> Tensor | None:
    """Queries of the running module, (S, H, L, d), as its own code makes them with other rotary embeddings."""

    def stopped(name: str, function: Attend) -> Attend:
        def attend(module: Any, query: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
            raise _AskedError(query.float())

        return attend

    frame = running.frame
    # The run goes on with the cache, and with keys and values that layers hand on: this call has none and copies.
    args, kwargs = mapped((frame.args, frame.kwargs | {"position_embeddings": embeddings}), ArgumentCopies())
    try:
        with replaced_attention(source_files(named_parts(frame.module)), stopped):
            type(frame.module).forward(frame.module, *args, **kwargs)
    except _AskedError as error:
        return error.query
    return None
