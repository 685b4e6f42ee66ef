"""Kinds of options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter, validators

Flag: TypeAlias = Annotated[bool, Parameter(negative="")]
Count: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1))]
