"""What a choice is: tokens that caches keep by their scores, or a basis of numbers that a channel keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from statesize.truncation.behind import HeldAttention
from statesize.truncation.blocks import Past

SINKS, RECENT = 4, 16
"""First and last tokens before the cut that every choice of tokens keeps."""


class TokenChoice(ABC):
    """Which tokens before the cut the caches of a layer keep: those with the highest scores.

    Attributes:
        name: As `cache` takes it.
    """

    name: ClassVar[str]

    @abstractmethod
    def scores(self, held: HeldAttention) -> Tensor:
        """Scores of the tokens before the cut, (K, i) float32; those of the first and last tokens do not matter."""

    def order(self, held: HeldAttention) -> Tensor:
        """Positions before the cut in the order in which each cache keeps them, (K, n) of the n that it holds."""
        scores = self.scores(held)
        scores[:, :SINKS] = torch.inf
        scores[:, -RECENT:] = torch.inf
        hidden = held.cut - held.available
        return scores[:, hidden:].argsort(dim=-1, descending=True, stable=True) + hidden


def kept(order: Tensor, counts: Tensor, cut: int) -> Tensor:
    """Which of the positions before the cut stay, (..., K, i) bool: so many (..., K) first ones of orders (K, n)."""
    rank = torch.full((len(order), cut), cut, device=order.device)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return rank < counts.to(order.device)[..., None]


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
    title: str  # as tables name it, behind the size
    basis: Basis
    scales: tuple[float, ...] = (0.0,)  # sizes in units of ESS, or of the joint ESS of a cache
    unit: Literal["head", "cache"] = "head"
    other_texts: bool = False  # whether ESS is the mean of other texts, not that of this text, its future included

    @property
    def line(self) -> str:
        """As a chart names all its sizes."""
        return f"{self.title}, once per cache" if self.unit == "cache" else self.title

    def of_size(self, scale: float) -> str:
        """As tables name one of its sizes."""
        if not scale:
            return self.title
        if self.unit == "cache":
            return f"{scale:g} × joint ESS, {self.line}"
        return f"{_FRACTIONS.get(scale, f'{scale:g} × its ESS')}, {self.title}"


_FRACTIONS = {0.25: "a quarter of its ESS", 0.5: "half its ESS", 1.0: "its ESS", 2.0: "twice its ESS"}
