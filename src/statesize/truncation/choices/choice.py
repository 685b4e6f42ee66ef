"""What a choice is: a basis of numbers that a channel keeps, at some sizes, or tokens that a cache keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from statesize.truncation.behind import HeldAttention
from statesize.truncation.blocks import Past

SINKS, RECENT = 4, 16
"""First and last tokens before the cut that a cache always keeps."""


class Basis(ABC):
    """Numbers Vₖᵀ u that a channel keeps of the inputs u before the cut: by the first k vectors of a basis V.

    Attributes:
        hindsight: Whether the basis knows the rows behind the cut, which differ from run to run.
        of_states: Whether a recurrent state, which holds no single tokens, can be cut so.
    """

    hindsight: ClassVar[bool] = False
    of_states: ClassVar[bool] = True

    @abstractmethod
    def vectors(self, past: Past, ranks: Tensor) -> Tensor:
        """V for each unit, or for those that share it, (..., c, n), at least up to these ranks (...)."""
        # Where its vectors are single inputs, their numbers in order, (..., c, 1) int64.


@dataclass(frozen=True)
class Rule:
    """How the truncation test cuts all mixers: by a basis, its sizes, and the unit that shares them."""

    name: str  # as rows name it
    title: str  # as tables name it behind a size, and charts all its sizes
    basis: Basis
    scales: tuple[float, ...] = (0.0,)  # sizes in units of ESS, or of the joint ESS of a cache
    unit: Literal["head", "cache"] = "head"
    other_texts: bool = False  # whether ESS is the mean of other texts, not that of this text, its future included

    def of_size(self, scale: float) -> str:
        """As tables name one of its sizes."""
        ess = "joint ESS" if self.unit == "cache" else "its ESS"
        numbers = ess if scale == 1 else f"{scale:g} × {ess}"
        return f"{numbers}, {self.title}" if scale else self.title


class Eviction(ABC):
    """Tokens before the cut that the caches of a layer keep: the first and last ones, then those of most score."""

    @abstractmethod
    def scores(self, held: HeldAttention) -> Tensor:
        """A score of each token, (K, i) float32."""

    def order(self, held: HeldAttention) -> Tensor:
        """Positions before the cut in the order in which each cache keeps them, (K, n) of the n that it holds."""
        scores, hidden = self.scores(held), held.cut - held.available
        scores[:, :SINKS] = scores[:, -RECENT:] = torch.inf
        return scores[:, hidden:].argsort(dim=-1, descending=True, stable=True) + hidden


def kept(order: Tensor, counts: Tensor, cut: int) -> Tensor:
    """Which of the positions before the cut stay, (K, i) bool: so many (K,) first ones of an order (K, n)."""
    rank = torch.full((len(order), cut), cut, device=order.device)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return rank < counts.to(order.device)[:, None]
