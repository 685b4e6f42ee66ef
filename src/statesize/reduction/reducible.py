"""The interface of models whose states can be cut, for `compress` and its frontier."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from statesize.check import real_number, refuse
from statesize.errors import ModelError
from statesize.reduction.bases import Basis
from statesize.reduction.windows import TokenWindows
from statesize.texts.tokens import AnyTokenizer


@dataclass(frozen=True, eq=False)
class Made:
    """A smaller model and how it was made."""

    way: str
    share: float  # of the numbers of state
    numbers: str  # "float", as the model has them, or "int8"
    model: nn.Module


@dataclass(frozen=True)
class ReductionRequest:
    """The arguments of `compress`."""

    state: float | str
    int8: bool = False
    fine_tune: int = 0
    free_basis: bool = False
    length: int = 256


class Reducible(ABC):
    """A model whose states can be cut."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    @abstractmethod
    def state_size(self) -> int:
        """Numbers of state that a head has, or a channel of Mamba."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """State sizes of the heads, a tuple for each layer; one number if all heads of a layer have the same size."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of the states of a sequence that can be cut, without those of short convolutions."""

    @property
    def positions(self) -> int | None:
        """Largest number of tokens in a sequence; None for any."""
        return None

    @abstractmethod
    def kept(self, request: ReductionRequest) -> int:
        """The number of states for `cut`; refuse what this model does not support."""

    @abstractmethod
    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """Refuse a tokenizer that `save` cannot write."""

    @abstractmethod
    def cut(
        self, kept: int, calibration: TokenWindows, choice: TokenWindows, request: ReductionRequest
    ) -> tuple[nn.Module, nn.Module, str]:
        """The model for comparison, the cut model, and how it was made."""

    @abstractmethod
    def every_cut(
        self, shares: Sequence[float], calibration: TokenWindows
    ) -> tuple[list[Made], Mapping[str, Sequence[Basis]]]:
        """The cuts to some shares in all ways, and the bases of the heads by the name of the layer's mixer."""

    @abstractmethod
    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """Writes the model and its tokenizer to an empty folder."""

    def rounded(self) -> nn.Module | None:
        """The model with states in int8, if its code supports them."""
        return None


def refuse_second_cut() -> NoReturn:
    """Refuse a model whose states were cut."""
    raise ModelError("model must have its states as trained, got one that was cut before. Give the original model.")


def share_of(state: float | str, size: int) -> float:
    """The requested share of a state of `size` numbers, above 0 and at most 1."""
    text = state.strip() if isinstance(state, str) else ""
    try:
        number = real_number(float(text.removesuffix("%")) if text else state)
    except ValueError:
        number = None
    share = math.nan if number is None else number / 100 if text.endswith("%") else number
    if share >= 1 and not text.endswith("%"):
        share /= size
    if not 0 < share <= 1:
        refuse("state", f"a share such as 50% or a size from 1 to {size}", state)
    return share
