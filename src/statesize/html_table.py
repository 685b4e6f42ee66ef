"""What notebooks show of a value: its facts as a small table."""

from __future__ import annotations

import html
from collections.abc import Mapping


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """A table of names and values; all text is escaped."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
