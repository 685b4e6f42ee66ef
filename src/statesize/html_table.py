"""What notebooks show of a value: its facts as a small table."""

from __future__ import annotations

import html
from collections.abc import Mapping


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """A table of names and values.

    Args:
        title: What it is of.
        facts: Values by name; all text is escaped.

    Returns:
        HTML.

    Example:
        >>> facts_table("Dense", {"length": 6})
        '<table><caption>Dense</caption><tr><th scope="row">length</th><td>6</td></tr></table>'
    """
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
