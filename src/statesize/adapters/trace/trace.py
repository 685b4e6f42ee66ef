"""T of a module, read from one run of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from statesize.adapters.trace.call import ModuleCall
from statesize.codes import Note
from statesize.errors import ModelError


class NoOperatorError(ModelError):
    """A module that mixes positions and has no T; its argument is a Note."""


@dataclass(frozen=True)
class Around:
    """How far positions are mixed around T, in positions; 0 for not at all."""

    before: int
    behind: int
    beside: int


@dataclass(frozen=True, eq=False)
class TracedMixing:
    """T of a module, of all its units.

    Attributes:
        values: What T acts on, (S, unit, L, P).
        mixed: What becomes of it, (S, unit, L, P): T values + offset.
        offset: The same of zeros, (S, unit, L, P).
        matrix: Returns T, (S, unit, L, L).
        respond: Returns `mixed` of other values, by the operations of the run.
        groups: Number of stored inputs that several units read; 0 where every unit has its own.
        order: Units in the order of what they read; empty where these are consecutive.
        shares_unevenly: Whether some units read the same input and form no groups.
        around: How far positions are mixed around T.
        attends: Whether T is made of weights of a softmax over the positions.
        largest_score: The largest absolute score of that softmax; 0 where there is none.
        in_double: Whether it was run in float64.
    """

    values: Tensor
    mixed: Tensor
    offset: Tensor
    matrix: Callable[[], Tensor]
    respond: Callable[[Tensor], Tensor]
    groups: int
    order: tuple[int, ...]
    shares_unevenly: bool
    around: Around
    attends: bool
    largest_score: float
    in_double: bool


class Trace:
    """One run of a module."""

    @classmethod
    def of(cls, call: ModuleCall, held: Collection[nn.Module] = ()) -> Self:
        """Run a module once, and read which positions each tensor depends on.

        Args:
            call: The module and its arguments.
            held: Modules inside of it that are measured already: what they return is given.

        Raises:
            ModelError: With a Note as its argument, of what cannot be traced.
        """
        raise NotImplementedError

    def looks_ahead(self) -> Note | None:
        """The first output that depends on a later position; None where there is none."""
        raise NotImplementedError

    def mixing(self) -> TracedMixing | None:
        """T; None where no positions are mixed.

        Raises:
            NoOperatorError: Where positions are mixed and there is no T.
        """
        raise NotImplementedError

    def around(self, values: Tensor, mixed: Tensor) -> Around | None:
        """How far positions are mixed around a T that was measured otherwise; None where it is not in this run.

        Args:
            values: What it acts on, (S, unit, L, P).
            mixed: What becomes of it, (S, unit, L, P).
        """
        raise NotImplementedError
