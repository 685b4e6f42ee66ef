"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import cast

from statesize.cli.shared.options import MAX_TOKENS, SEQUENCES

_arguments: list[str] = []
_NAMES = {second: first for first, second in (SEQUENCES, MAX_TOKENS)}
"""Second names of options, with the first."""


def begin(arguments: Sequence[str]) -> None:
    """Keep what the program was called with."""
    _arguments[:] = arguments


def called_again(*more: object) -> list[object]:
    """The same command with more options."""
    return [*_arguments, *more]


def called_with(changes: Mapping[str, object]) -> list[object]:
    """The same command with other values of options; a list takes the place of all its values, None leaves it out."""
    arguments: list[object] = []
    left_out = 0
    for one in _arguments:
        name, equals, _ = one.partition("=")
        if (option := _NAMES.get(name, name)) in changes:
            left_out = 0 if equals else len(_arguments) if isinstance(changes[option], list) else 1
        elif left_out and not one.startswith("--"):
            left_out -= 1
        else:
            left_out = 0
            arguments.append(one)
    for name, value in ((name, value) for name, value in changes.items() if value is not None):
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        arguments += [name, ",".join(map(str, values))]
    return arguments


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
