"""What a command found: as a table or JSON on stdout, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from statesize.cli.output.document import SCHEMA, print_json
from statesize.cli.output.page import tell_page
from statesize.cli.output.printing import Printing
from statesize.cli.output.table import print_table


class Finding(Protocol):
    """A result with one finding: of a series, a growth, or needles."""

    @property
    def finding(self) -> str:
        """It, in a sentence or two."""
        ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """What was not measured, and why."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values."""
        ...

    def to_html(self, path: Path, /) -> Path:
        """Writes a page."""
        ...


def print_finding(
    found: Finding,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    left: int,
    html: Path | None,
    printing: Printing,
) -> None:
    """Write the page that is asked for, and print the table or all as JSON; notes come below the finding.

    The first `left` columns are words.
    """
    if html is not None:
        found.to_html(html)
    if printing.json:
        print_json({"schema": SCHEMA, **found.to_dict()})
    else:
        skipped = (f"skipped: {name}: {reason}" for name, reason in found.skipped.items())
        print_table(headings, rows, left, [found.finding, *skipped, *notes])
    if html is not None:
        tell_page(html, printing, open_page=False)
