"""Kinds of options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter, validators

from statesize.errors import InputError

Flag: TypeAlias = Annotated[bool, Parameter(negative="")]
MOST = 10**9
"""The largest count that an option takes."""

Count: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=MOST))]
AtLeastTwo: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=2, lte=MOST))]
Seed: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63))]


def whole_numbers(name: str, given: str) -> list[int]:
    """Numbers with commas between them."""
    try:
        return [int(part) for part in given.split(",")]
    except ValueError as error:
        raise InputError(f"{name} must be numbers with commas between them, got {given!r}.") from error
