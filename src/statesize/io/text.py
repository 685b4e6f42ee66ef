"""Text for terminals and pages."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

from rich.filesize import decimal

# Control characters, format characters such as those that change the writing direction, surrogates, and line ends.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Untrusted text with control and invisible characters escaped, such as \u001b."""
    # JSON's escapes, so that a JSON document keeps its meaning.
    return "".join(json.dumps(sign)[1:-1] if unicodedata.category(sign) in _HIDDEN else sign for sign in text)


def byte_count(count: float) -> str:
    """A number of bytes for people, such as 512 bytes, 1.5 kB or 2.0 GB."""
    return decimal(round(count))


def listed(names: Sequence[str]) -> str:
    """The first three of some names in a row, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one: 1 row, 1,200 rows."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
