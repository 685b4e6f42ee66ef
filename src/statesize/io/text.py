"""Text on its way to a terminal or a page."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Mapping

# Control characters, formats such as those that turn the direction of writing, surrogates, and ends of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""A text with escapes such as \u001b for what would steer a terminal, break a line, or not be seen."""
    # Those of JSON, so that a JSON document keeps its meaning.
    return "".join(json.dumps(sign)[1:-1] if unicodedata.category(sign) in _HIDDEN else sign for sign in text)


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """A table of names and values; all text is escaped."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
