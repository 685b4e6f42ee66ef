"""What a profile is asked for, checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch

from statesize.errors import InputError
from statesize.ess import check_tolerances
from statesize.operators.validation import whole_number


@dataclass(frozen=True)
class Settings:
    """What each mixer is measured for.

    Attributes:
        tolerances: Absolute tolerances τ, in units of σ.
        relative_tolerances: Tolerances ρ, in units of σ_1 at each position.
        positions: None for all, a number of them, or the positions themselves, ascending and at least 1.
        engine: Name of an engine.
    """

    tolerances: tuple[float, ...]
    relative_tolerances: tuple[float, ...]
    positions: int | tuple[int, ...] | None
    engine: str


def check_settings(tolerances: object, relative_tolerances: object, positions: object, engine: str) -> Settings:
    """Settings from what a caller gave; anything else than these is an InputError that names the argument.

    Args:
        tolerances: An iterable of numbers ≥ 0.
        relative_tolerances: Likewise.
        positions: None, an integer ≥ 1, or an iterable of integers ≥ 0; position 0 needs no measurement.
        engine: Name of an engine.

    Returns:
        The settings.

    Example:
        >>> check_settings([1e-3], (), positions=[9, 0, 2], engine="auto").positions
        (2, 9)
    """
    return Settings(
        _thresholds("tolerances", tolerances),
        _thresholds("relative_tolerances", relative_tolerances),
        _positions(positions),
        engine,
    )


def _thresholds(name: str, given: object) -> tuple[float, ...]:
    try:
        thresholds = torch.tensor(tuple(cast("Iterable[float]", given)), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is {given!r}; expected a list of numbers such as [1e-3].") from error
    if thresholds.ndim != 1:
        raise InputError(f"{name} has {thresholds.ndim} dimensions; expected a list of numbers such as [1e-3].")
    check_tolerances(name, thresholds)
    return tuple(float(threshold) for threshold in thresholds)


def _positions(given: object) -> int | tuple[int, ...] | None:
    if given is None:
        return None
    # A tensor of one entry would pass for a number, but it is a list.
    number = whole_number(given) if getattr(given, "ndim", 0) == 0 else None
    if number is not None:
        if number < 1:
            raise InputError(f"positions is {number}; expected None, a number of at least 1, or a list.")
        return number
    try:
        listed = list(cast("Iterable[object]", given))
    except TypeError as error:
        raise InputError(f"positions is {given!r}; expected None, a whole number, or a list of them.") from error
    chosen: set[int] = set()
    for item in listed:
        position = whole_number(item)
        if position is None:
            raise InputError(f"positions has {item!r}; expected whole numbers.")
        chosen.add(position)
    ascending = tuple(sorted(chosen - {0}))
    if not ascending or ascending[0] < 0:
        raise InputError(f"positions is {listed}; expected positions of at least 1.")
    return ascending
