"""Tables on stdout that no terminal cuts, and numbers as their cells hold them."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from statesize.printable import printable

_BAR = 16
_ASCII = str.maketrans(
    {"σ": "s", "₁": "_1", "±": "+-", "×": "x", "µ": "u", "³": "^3", "²": "^2", "⁴": "^4", "█": "#", "░": "."}
)


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int,
    notes: Sequence[str] = (),
    shares: Sequence[float] = (),
) -> None:
    """Print a table as wide as it needs: nothing is cut or wrapped, whatever the terminal's width.

    Args:
        headings: Of the columns; a line break makes two lines.
        rows: Plain text, one cell a column; a row without cells is blank.
        left: How many of the first columns are flush left; the others hold numbers.
        notes: Lines below it.
        shares: One a row, drawn as bars where the terminal has room for them.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True, width=10_000, height=100)
    signs = signs_of(console)
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf

    def width(table: Table) -> int:
        return Measurement.get(console, console.options, table).maximum

    table = _table(headings, rows, left, shares, signs)
    if shares and width(table) > terminal:
        table = _table(headings, rows, left, (), signs)
    # With a height too, because rich takes the width of a dumb terminal for 80 whatever it is told.
    Console(highlight=False, width=width(table), height=100).print(table, crop=False, overflow="ignore")
    for note in ("", *notes) if notes else ():
        console.print(printable(note).translate(signs))


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, shares: Sequence[float], signs: dict[int, str]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading.translate(signs), justify="left" if place < left else "right", no_wrap=True)
    if shares:
        table.add_column("", no_wrap=True)
    for index, row in enumerate(rows):
        cells = [
            Text(printable(cell).translate(signs), style="" if place else "bold") for place, cell in enumerate(row)
        ]
        table.add_row(*cells, *([share_bar(shares[index], signs)] if shares and row else []))
    return table


def signs_of(console: Console) -> dict[int, str]:
    """What takes the place of signs that a console cannot show, for `str.translate`."""
    return _ASCII if console.options.ascii_only else {}


def share_bar(share: float, signs: dict[int, str]) -> Text:
    """A share as a bar."""
    filled = round(min(max(share, 0.0), 1.0) * _BAR) if math.isfinite(share) else 0
    full, empty = ("█" * filled).translate(signs), ("░" * (_BAR - filled)).translate(signs)
    return Text(full, style="blue").append(empty, style="dim")


def number_text(value: float, form: str, error: float = 0.0) -> str:
    """A number by a form of `statesize.results.fields.HEADINGS`, with half the width of its interval; else a dash."""
    if not math.isfinite(value):
        return "-"
    if form == "bytes":
        return byte_count(value)
    if form == "norm":
        form = ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f"
    return format(value, form) + (f" ± {number_text(error, form)}" if error else "")


def byte_count(count: float) -> str:
    """A number of bytes for people, such as 512 B, 1.5 kB or 2.0 GB."""
    for name in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if name == "B" else f"{count:.1f} {name}"
        count /= 1000
    return f"{count:.1f} TB"
