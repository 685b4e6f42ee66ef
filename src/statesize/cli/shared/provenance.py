"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from statesize.cli.shared.options import MAX_TOKENS, SEQUENCES

_arguments: list[str] = []
_NAMES = {second: first for first, second in (SEQUENCES, MAX_TOKENS)}
"""Second names of options, with the first."""


def begin(arguments: Sequence[str]) -> None:
    """Keep what the program was called with."""
    _arguments[:] = arguments


def called_again(*more: object, without: str = "") -> list[object]:
    """The same command with more options, or without one."""
    return [*(one for one in _arguments if one != without), *more]


def called_with(changes: Mapping[str, object]) -> list[object]:
    """The same command with other values of options."""
    arguments: list[object] = []
    given = iter(_arguments)
    for one in given:
        name, equals, _ = one.partition("=")
        if _NAMES.get(name, name) not in changes:
            arguments.append(one)
        elif not equals:
            next(given, None)
    return [*arguments, *(part for change in changes.items() for part in change)]


def as_called(words: str) -> str:
    """Words in which options that have two names stand as they were typed."""
    for other, name in _NAMES.items():
        if any(one.partition("=")[0] == other for one in _arguments):
            words = words.replace(name, other)
    return words


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
