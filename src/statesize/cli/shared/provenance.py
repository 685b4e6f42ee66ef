"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_arguments: list[str] = []


def begin(arguments: Sequence[str]) -> None:
    """Keep what the program was called with."""
    _arguments[:] = arguments


def called_again(*more: object, without: str = "") -> list[object]:
    """The same command with more options, or without one."""
    return [*(one for one in _arguments if one != without), *more]


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
