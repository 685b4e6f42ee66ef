"""The students of a teacher, as data: part of what a run is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from statesize.check import refuse


@dataclass(frozen=True)
class Distillation:
    """The students of one teacher.

    Attributes:
        key_sizes: n of students that have the same in each layer.
        losses: Wanted operator errors, for each of which a student has the sizes that `recommend_state_size` names.
        steps: Steps of learning the operators, and again of learning hidden states and predictions.
        batch_size: Sequences of a step.
        rate: Learning rate for the operators; half of it for the rest.

    Raises:
        InputError: A value is out of range.
    """

    key_sizes: tuple[int, ...] = (2, 4, 8)
    losses: tuple[float, ...] = ()
    steps: int = 400
    batch_size: int = 16
    rate: float = 1e-2

    def __post_init__(self) -> None:
        for name, whole in (("key_sizes", True), ("losses", False)):
            values = cast("Sequence[object]", getattr(self, name))
            if not isinstance(values, tuple | list) or not all(_is_positive(value, whole) for value in values):
                refuse(name, "a list of positive numbers", values)
            object.__setattr__(self, name, tuple(values))
        for name, whole in (("steps", True), ("batch_size", True), ("rate", False)):
            if not _is_positive(getattr(self, name), whole):
                refuse(name, "a positive number", getattr(self, name))

    @property
    def students(self) -> int:
        """How many there are."""
        return len(self.key_sizes) + len(self.losses)


def _is_positive(value: object, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf and (isinstance(value, int) or not whole)
