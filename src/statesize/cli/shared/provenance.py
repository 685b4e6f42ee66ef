"""The command line that makes a result, which stays in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.cli.shared.printing import Printing
    from statesize.cli.shared.texts import Texts

_arguments: list[str] = []


def begin(arguments: Sequence[str]) -> None:
    """Keep what the program was called with."""
    _arguments[:] = arguments


def called_again(*more: object, without: str = "") -> list[object]:
    """The same command with more options, or without one."""
    return [*(one for one in _arguments if one != without), *more]


def called_with(option: str, value: object, *, alias: str) -> list[object]:
    """The same command with another value of an option that has two names."""
    arguments: list[object] = []
    given = iter(_arguments)
    for one in given:
        name, equals, _ = one.partition("=")
        if name not in (option, alias):
            arguments.append(one)
        elif not equals:
            next(given, None)
    return [*arguments, option, value]


def tell_more(
    printing: Printing, texts: Texts, read: Sequence[Tensor], documents: int, reached: int, *, longer: bool, least: int
) -> None:
    """Say what would tell more: a changed command, or that only more text would.

    Args:
        printing: What is printed.
        texts: The options.
        read: All texts that are there.
        documents: How many pieces of them were asked for.
        reached: Over how many texts intervals could be; more pieces of too few give none.
        longer: Whether longer pieces are wanted.
        least: How many pieces the command needs.
    """
    from statesize.measurement.statistics import ENOUGH_TOKENS, FEWEST_TEXTS

    size = texts.max_tokens
    more = max(2 * size, ENOUGH_TOKENS)
    if longer and sum(len(text) // more for text in read) >= least:
        command = called_with("--max-tokens", more, alias="--tokens")
        printing.next(*command, why="longer texts, in which context matters")
    elif reached >= FEWEST_TEXTS and sum(len(text) // size for text in read) > documents:
        printing.next(
            *called_with("--documents", max(2 * documents, FEWEST_TEXTS), alias="--sequences"),
            why="an answer from more pieces of text",
        )
    elif not printing.json:
        printing.say(f"Only more text would tell more: {texts.more_of}.")


def command_line() -> str:
    """What the program was called with, for a shell."""
    return shlex.join(["statesize", *_arguments])
