"""What a page says, on stdout, within the width of a terminal."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from statesize.cli.shared.printing import SCHEMA, Printing, Reporting, print_json
from statesize.io.text import counted, listed, printable
from statesize.report.document import Shown, cell_text, number_columns, shown_headings
from statesize.report.result_page import PageTable, ResultPage

BAR = 16
# As many as a test of cuts has, with all that can be asked for.
_MOST_ROWS = 40
# A line that tells of one row or two takes about as much room as they do.
_FEWEST_HIDDEN = 3
_ENDLESS = 10_000
_NARROWEST = 12
_ASCII = str.maketrans(
    {
        "σ": "s",
        "₁": "_1",
        "±": "+-",
        "×": "x",
        "µ": "u",
        "³": "^3",
        "²": "^2",
        "⁴": "^4",
        "█": "#",
        "░": ".",
        "−": "-",
        "–": "-",
        "…": "...",
    }
)


def print_table(table: PageTable) -> None:
    """Print a table: as wide as it needs to a file or pipe, within the width of a terminal.

    Columns from the first of numbers on are flush right, and shares in the last one have bars. A terminal that is too
    narrow loses the bars first; then texts break between words, then the last columns go, and a note names them.
    """
    headings = shown_headings(table.headings)
    whole = [row for row in table.rows if len(row) == len(headings)]
    # Texts may begin with a number, as names do, where others are numbers.
    numbers = {column for row in whole for column, cell in enumerate(row) if not isinstance(cell, str)}
    left = max(1, min(numbers) if numbers else [*number_columns(headings, whole), True].index(True))
    shares = [row[-1].value if isinstance(row[-1], Shown) and "%" in row[-1].text else math.nan for row in whole]
    # Where a row has none, its share may be one of another kind.
    with_bars = bool(shares) and all(map(math.isfinite, shares))
    drawn, notes, terminal = _table(headings, table.rows, left, with_bars), table.caption.splitlines(), _terminal()
    if _measured(drawn).maximum > terminal:
        fitting, drawn = len(headings), _table(headings, table.rows, left)
        while _measured(drawn).minimum > terminal and fitting > left:
            fitting -= 1
            drawn = _table(headings[:fitting], table.rows, left)
        if fitting < len(headings):
            missing = ", ".join(heading.replace("\n", " ") for heading in headings[fitting:])
            notes.append(f"No room in {counted(terminal, 'column')} for {missing}: see --json, or a wider terminal.")
    # With a height too, because rich takes the width of a dumb terminal for 80 otherwise.
    width = min(terminal, _measured(drawn).maximum)
    Console(highlight=False, width=width, height=100).print(drawn, crop=False, overflow="ignore")
    print_notes(["", *notes] if notes else [])


def _terminal() -> int:
    """Columns of the terminal; many of a file or pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True, width=_ENDLESS, height=100)


def _signs() -> dict[int, str]:
    """Replacements of signs that stdout cannot show, for `str.translate`."""
    return _ASCII if _console().options.ascii_only else {}


def _measured(table: Table) -> Measurement:
    console = _console()
    return Measurement.get(console, console.options, table)


def print_notes(notes: Sequence[str]) -> None:
    """Print lines that break between words where a terminal is too narrow for them."""
    console, signs, width = _console(), _signs(), max(_terminal(), _NARROWEST)
    for note in notes:
        for line in note.splitlines() or [""]:
            line = printable(line).translate(signs)
            console.print(textwrap.fill(line, width, break_on_hyphens=False))


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]], left: int, bars: bool = False) -> Table:
    """A table of the first columns, as many as there are headings; texts after the first column may break."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    signs = _signs()
    shown = [[printable(cell_text(cell)).translate(signs) for cell in row[: len(headings)]] for row in rows]
    for column, heading in enumerate(headings):
        cells = [*heading.translate(signs).splitlines(), *(row[column] for row in shown if len(row) == len(headings))]
        natural, breaks = max(map(cell_len, cells)), 0 < column < left
        table.add_column(
            heading.translate(signs),
            justify="left" if column < left else "right",
            no_wrap=not breaks,
            min_width=min(natural, _NARROWEST) if breaks else natural,
        )
    if bars:
        table.add_column("", no_wrap=True, min_width=BAR)
    for row, cells in zip(rows, shown, strict=True):
        styled = [Text(cell, style="" if column else "bold") for column, cell in enumerate(cells)]
        last = row[-1]
        table.add_row(*styled, *([share_bar(last.value, signs)] if bars and isinstance(last, Shown) else []))
    return table


def share_bar(share: float, signs: dict[int, str]) -> Text:
    """A share as a bar."""
    filled = round(min(max(share, 0.0), 1.0) * BAR)
    full, empty = ("█" * filled).translate(signs), ("░" * (BAR - filled)).translate(signs)
    return Text(full, style="blue").append(empty, style="dim")


def print_page(page: ResultPage) -> None:
    """Print what a page says: its finding, its tables and its notes."""
    print_notes(page.finding.splitlines())
    for table in page.tables:
        print()
        print_notes([f"{table.title}:"] if table.title else [])
        print_table(table)
    for title, notes in page.notes.items():
        if notes:
            print_notes(["", f"{title}:", *notes])


def show(page: ResultPage, document: dict[str, Any], printing: Printing) -> None:
    """Print what a page says, or the document as JSON."""
    if printing.json:
        print_json({"schema": SCHEMA} | document)
    else:
        print_page(page)


def show_page(page: ResultPage, document: dict[str, Any], printing: Reporting) -> None:
    """Write the page if it is wanted, and show its first table; or the document."""
    if printing.html is not None:
        page.write(printing.html)
        printing.tell_report()
    first, *others = page.tables
    show(replace(page, tables=[_beginning(first)]), document, printing)
    if printing.html is None and others and not printing.json:
        titles = (f"{table.title[:1].lower()}{table.title[1:]}" for table in others)
        printing.say(f"--html and --json also have a table of {listed([*titles])}.")


def _beginning(table: PageTable) -> PageTable:
    # As many are left out as are worth a line that says so.
    if len(table.rows) < _MOST_ROWS + _FEWEST_HIDDEN:
        return table
    more = f"… and {len(table.rows) - _MOST_ROWS} rows more, which --html shows."
    return replace(table, rows=table.rows[:_MOST_ROWS], caption="\n".join(filter(None, (more, table.caption))))
