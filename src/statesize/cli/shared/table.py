"""Tables on stdout within the width of a terminal."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from statesize.cli.shared.printing import SCHEMA, Printing, print_json, tell_page
from statesize.io.progress import duration
from statesize.io.text import printable

if TYPE_CHECKING:
    from statesize.io.steps import Steps
    from statesize.report.result_page import ResultPage

BAR = 16
_MOST_ROWS = 20
_ENDLESS = 10_000
_NARROWEST, _MIDDLE = 12, 18
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


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int,
    notes: Sequence[str] = (),
    shares: Sequence[float] = (),
) -> None:
    """Print a table: as wide as it needs to a file or pipe, within the width of a terminal.

    A terminal that is too narrow loses the bars first; then text breaks between words, then the last columns go, and
    a note names them.

    Args:
        headings: Headings of the columns; a line break makes two lines.
        rows: Plain text, one cell a column; a row of one cell is a title, and a row without cells is blank.
        left: How many of the first columns are flush left; the others hold numbers.
        notes: Lines below it.
        shares: One a row, drawn as bars.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True, width=10_000, height=100)
    signs = signs_of(console)
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
    fitting, drawn, notes = len(headings), shares, list(notes)
    table = _table(headings, rows, left, drawn, signs, [])
    if _width(console, table) > terminal:
        drawn, rooms = (), _rooms(headings, rows, left, terminal)
        table = _table(headings, rows, left, drawn, signs, rooms)
        while _width(console, table) > terminal and fitting > max(left, 1):
            fitting -= 1
            table = _table(headings[:fitting], [row[:fitting] for row in rows], left, drawn, signs, rooms)
    if fitting < len(headings):
        missing = ", ".join(heading.replace("\n", " ") for heading in headings[fitting:])
        notes.append(f"No room in {terminal} columns for {missing}: see --json, or a wider terminal.")
    # With a height too, because rich takes the width of a dumb terminal for 80 otherwise.
    Console(highlight=False, width=_width(console, table), height=100).print(table, crop=False, overflow="ignore")
    print_notes(["", *notes] if notes else [])


def print_notes(notes: Sequence[str]) -> None:
    """Print lines that break between words where a terminal is too narrow for them."""
    console = Console(highlight=False, markup=False, soft_wrap=True, width=10_000, height=100)
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
    for note in notes:
        for line in note.splitlines() or [""]:
            line = printable(line).translate(signs_of(console))
            console.print(textwrap.fill(line, max(terminal, _NARROWEST), break_on_hyphens=False))


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options, table).maximum


def _rooms(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int, terminal: int) -> list[int]:
    """Widths of text columns in a terminal: names whole, the last takes what the others leave."""
    natural = [
        max((cell_len(line) for row in (headings, *rows) for line in row[column : column + 1]), default=0)
        for column in range(len(headings))
    ]
    rooms = [natural[0], *(min(width, _MIDDLE) for width in natural[1 : max(left - 1, 1)])][:left]
    rest = terminal - sum(rooms) - sum(natural[left:]) - 2 * len(headings)
    return [*rooms, max(_NARROWEST, rest)][: max(left, 1)]


def _table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int,
    shares: Sequence[float],
    signs: dict[int, str],
    rooms: Sequence[int],
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, heading in enumerate(headings):
        options: dict[str, Any] = {"max_width": rooms[column]} if column < min(left, len(rooms)) else {"no_wrap": True}
        table.add_column(heading.translate(signs), justify="left" if column < left else "right", **options)
    if shares:
        table.add_column("", no_wrap=True)
    for index, row in enumerate(rows):
        cells = [
            Text(printable(cell).translate(signs), style="" if column else "bold") for column, cell in enumerate(row)
        ]
        table.add_row(*cells, *([share_bar(shares[index], signs)] if shares and len(row) > 1 else []))
    return table


def signs_of(console: Console) -> dict[int, str]:
    """Replacements of signs that a console cannot show, for `str.translate`."""
    return _ASCII if console.options.ascii_only else {}


def share_bar(share: float, signs: dict[int, str]) -> Text:
    """A share as a bar."""
    filled = round(min(max(share, 0.0), 1.0) * BAR) if math.isfinite(share) else 0
    full, empty = ("█" * filled).translate(signs), ("░" * (BAR - filled)).translate(signs)
    return Text(full, style="blue").append(empty, style="dim")


def show_page(
    page: ResultPage, document: dict[str, Any], html: Path | None, printing: Printing, *, open_page: bool
) -> None:
    """Write the page if it is wanted, and print what it says, or the document as JSON."""
    from statesize.report.document import cell_text, number_columns, shown_headings

    if html is not None:
        page.write(html)
        tell_page(html, printing, open_page=open_page)
    if printing.json:
        print_json({"schema": SCHEMA} | document)
        return
    print_notes([page.finding])
    for table in page.tables:
        print()
        headings = shown_headings(table.headings)
        words = [*number_columns(headings, table.rows), True].index(True)
        hidden = len(table.rows) - _MOST_ROWS
        more = [f"… and {hidden} rows more, which --html shows."] if hidden > 0 else []
        rows = [[cell_text(cell) for cell in row] for row in table.rows[:_MOST_ROWS]]
        print_table(headings, rows, words, [*more, *([table.caption] if table.caption else [])])
    for title, notes in page.notes.items():
        if notes:
            print_notes(["", f"{title}:", *notes])


def print_plan(model: str, plan: Callable[[], Steps], printing: Printing) -> None:
    """Try what a command would do, and print how long it takes, each kind of step with the time of those timed."""
    with printing.step(f"trying {model}"):
        steps = plan()
    if printing.json:
        rows = [{"name": kind, "count": cost, "seconds": steps.each(kind)} for kind, cost in steps.costs.items()]
        print_json({"schema": SCHEMA, "model": model, "seconds": steps.seconds, "steps": rows})
        return
    print_notes([f"About {duration(steps.seconds)} after loading.", ""])
    cells = [(kind, f"{cost:,.0f}", f"{steps.each(kind):.2g}") for kind, cost in steps.costs.items()]
    print_table(("what", "how often", "seconds each"), cells, 1)
