"""What is found of a trend, a series or a growth: as a table or JSON on stdout, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from statesize.cli.output.document import SCHEMA, print_json
from statesize.cli.output.page import tell_page
from statesize.cli.output.printing import Printing
from statesize.cli.output.table import print_table
from statesize.trends.growth import Growth
from statesize.trends.result import Series


def print_trend(
    found: Series | Growth,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    html: Path | None,
    printing: Printing,
) -> None:
    """Write the page that is asked for, and print a row a layer, or all as JSON; notes come below the finding."""
    if html is not None:
        found.to_html(html)
    if printing.json:
        print_json({"schema": SCHEMA, **found.to_dict()})
    else:
        skipped = (f"skipped: {name}: {reason}" for name, reason in found.skipped.items())
        print_table(headings, rows, 1, [found.finding, *skipped, *found.notes, *notes])
    if html is not None:
        tell_page(html, printing, open_page=False)
