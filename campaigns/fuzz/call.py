"""A call that is not made yet, and what its arguments are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from campaigns.fuzz.hostile import Source
from campaigns.fuzz.operators import Case

Refusal = Literal["always", "never", "maybe"]


@dataclass
class Call:
    """A call that is not made yet.

    Attributes:
        run: Makes it.
        check: Returns what is wrong with its answer.
        refusal: Whether it must, must not or may be refused by a StatesizeError.
        names: The names of which such an error must hold one.
        about: The call in words, for reports.
    """

    run: Callable[[], Any]
    check: Callable[[Any], list[str]]
    refusal: Refusal
    names: tuple[str, ...]
    about: str


def expected_refusal(source: Source, case: Case | None = None, wrong: bool = False) -> Refusal:
    """Whether a call on a case must, must not or may be refused."""
    if wrong or source.poisoned or (case is not None and case.wrong):
        return "always"
    return "maybe" if source.extreme or (case is not None and not moderate(case)) else "never"


def moderate(case: Case) -> bool:
    """Whether T is far from all limits of float64."""
    size = np.abs(case.T)
    return bool(np.isfinite(size).all() and (size < 1e100).all())
