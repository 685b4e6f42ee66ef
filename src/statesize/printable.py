"""Text of strangers on its way to a terminal."""

from __future__ import annotations

import json
import unicodedata

# Control characters, formats such as those that turn the direction of writing, surrogates, and ends of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""A text with escapes such as \u001b for what would steer a terminal, break a line, or not be seen."""
    # Those of JSON, so that a JSON document keeps its meaning.
    return "".join(json.dumps(sign)[1:-1] if unicodedata.category(sign) in _HIDDEN else sign for sign in text)
