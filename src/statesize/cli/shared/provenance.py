"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statesize.cli.shared.texts import Texts

_arguments: list[str] = []


def begin(arguments: Sequence[str]) -> None:
    """Keep what the program was called with."""
    _arguments[:] = arguments


def called_again(*more: object, without: str = "") -> list[object]:
    """The same command with more options, or without one."""
    return [*(one for one in _arguments if one != without), *more]


def called_with(option: str, value: object) -> list[object]:
    """The same command with another value of an option."""
    arguments = [*_arguments]
    if option in arguments:
        del arguments[arguments.index(option) : arguments.index(option) + 2]
    return [*arguments, option, value]


def more_texts(texts: Texts, documents: int) -> list[object]:
    """The same command over twice as many documents; over the same files, whose reader adds to them."""
    return called_again() if texts.any_chosen else called_with("--documents", 2 * documents)


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
