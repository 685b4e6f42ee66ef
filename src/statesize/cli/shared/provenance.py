"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.cli.shared.printing import Printing
    from statesize.cli.shared.texts import Texts

_arguments: list[str] = []
_NAMES = {"--documents": "--sequences", "--tokens": "--max-tokens"}
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


def tell_more(
    printing: Printing, texts: Texts, read: Sequence[Tensor], documents: int, reached: int, *, longer: bool, least: int
) -> None:
    """Say what would tell more: a changed command, or that only more text would."""
    # read: all texts that are there. documents: pieces that were asked for, of `least` that are needed. reached: texts
    # over which intervals could be; more pieces of too few give none. longer: whether longer pieces are wanted.
    from statesize.measurement.statistics import ENOUGH_TOKENS, FEWEST_TEXTS

    size, changes = texts.max_tokens, dict[str, object]()
    twice = max(2 * size, ENOUGH_TOKENS)
    if longer and sum(len(text) // twice for text in read) >= least:
        changes["--max-tokens"] = size = twice
    if reached >= FEWEST_TEXTS and sum(len(text) // size for text in read) > documents:
        changes["--sequences"] = max(2 * documents, FEWEST_TEXTS)
    if changes:
        told = " and ".join({"--max-tokens": "longer", "--sequences": "more"}[name] for name in changes)
        printing.next(*called_with(changes), why=f"{told} pieces of text tell more")
    elif not printing.json:
        printing.say(f"Only more text would tell more: {texts.more_of}.")


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
