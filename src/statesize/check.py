"""Checks of arguments that are no tensors; every message names the argument and quotes what was given."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import SupportsIndex, cast

from statesize.errors import InputError

# Bytes of a file's name, on every file system in use.
_LONGEST_NAME = 255


def require_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Refuse what is of another class.

    Args:
        name: The argument's name, quoted in the message.
        value: What was given.
        kind: The class, or several.
        expected: The class in words, with its article.

    Raises:
        InputError: It is of another class.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}; {expected} was expected")


def require_count(name: str, value: object, least: int = 1) -> int:
    """A whole number from a smallest one on, below 2⁶³.

    Args:
        name: The argument's name, quoted in the message.
        value: What was given: an integer of Python, numpy or torch.
        least: The smallest that is good.

    Returns:
        The number.

    Raises:
        InputError: It is no whole number, or out of range.
    """
    try:
        count = (
            None
            if "bool" in str(getattr(value, "dtype", type(value)))
            else operator.index(cast("SupportsIndex", value))
        )
    except (TypeError, RuntimeError):
        count = None
    if count is None or not least <= count < 2**63:
        raise InputError(f"{name} is {value!r}; a whole number of at least {least} was expected")
    return count


def require_path(name: str, value: object) -> Path:
    """A path that a file system can be asked for.

    Args:
        name: The argument's name, quoted in the message.
        value: What was given.

    Returns:
        The path.

    Raises:
        InputError: It is no text and no path, empty, or has characters that no file name can have.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} is a {type(value).__name__}; a path was expected")
    text = os.fspath(cast("str | os.PathLike[str]", value))
    try:
        good = isinstance(text, str) and bool(text) and "\0" not in text  # pyright: ignore[reportUnnecessaryIsInstance]
        good = good and all(len(os.fsencode(part)) <= _LONGEST_NAME for part in Path(text).parts)
    except UnicodeEncodeError:
        good = False
    if not good:
        raise InputError(f"{name} is {text!r}, which is no path")
    return Path(text)
