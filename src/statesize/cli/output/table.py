"""Tables on stdout that no terminal cuts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ASCII = str.maketrans({"σ": "s", "×": "x", "µ": "u", "³": "^3", "²": "^2", "⁴": "^4"})


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, notes: Sequence[str] = ()) -> None:
    """Print a table as wide as it needs: nothing is cut or wrapped, whatever the terminal's width.

    Args:
        headings: Of the columns; a line break makes two lines.
        rows: Plain text, one cell a column.
        left: How many of the first columns are flush left; the others hold numbers.
        notes: Lines below it.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True, width=10_000, height=100)
    signs = _ASCII if console.options.ascii_only else {}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading.translate(signs), justify="left" if place < left else "right", no_wrap=True)
    for row in rows:
        cells = (cell.translate(signs) for cell in row)
        table.add_row(*(Text(cell, style="" if place else "bold") for place, cell in enumerate(cells)))
    width = Measurement.get(console, console.options, table).maximum
    # With a height too, because rich takes the width of a dumb terminal for 80 whatever it is told.
    Console(highlight=False, width=width, height=100).print(table, crop=False, overflow="ignore")
    for note in ("", *notes) if notes else ():
        console.print(note.translate(signs))
