"""How a command prints: its result on stdout, as text or JSON, and what it does meanwhile on stderr."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter

from statesize.cli.shared.options import OFTEN, Flag, Output
from statesize.io.json_values import json_values
from statesize.io.progress import say
from statesize.io.text import printable

if TYPE_CHECKING:
    from statesize.report.result_page import ResultPage
    from statesize.report.table import PageTable

SCHEMA = 1
_ENDLESS, _NARROWEST, _MOST_ROWS, _MOST_LEFT_OUT = 10_000, 12, 40, 3


def command_line() -> str:
    """What the program was called with, for a shell; it stays in results."""
    return shlex.join(["statesize", *sys.argv[1:]])


@Parameter(name="*")
@dataclass(frozen=True)
class Printing:
    """What is printed.

    Attributes:
        json: Print the result as one JSON document.
    """

    json: Flag = False


@Parameter(name="*")
@dataclass(frozen=True)
class Reporting(Printing):
    """What is printed, and the page of a result.

    Attributes:
        html: HTML file for a page with the charts.
        open_page: Show the page in the browser; without --html its file is in this folder, named after the result.
    """

    html: Output = None
    open_page: Annotated[Flag, Parameter(name="--open", group=OFTEN)] = False

    def named(self, name: str) -> Self:
        """The same with a file, of this name if it is only to be opened; refuse one that cannot be written."""
        from statesize.io.files import check_report_path

        named = replace(self, html=Path(f"{name}.html")) if self.open_page and self.html is None else self
        if named.html is not None:
            check_report_path(named.html, "html")
        return named

    def tell_report(self) -> None:
        """Say where the page lies, and open it if that is wanted."""
        if self.html is not None:
            say(f"Page: {self.html}")
            if self.open_page:
                show_in_browser(self.html)


TEXT, REPORTING = Printing(), Reporting()
"""The defaults of what is printed."""


def hush_libraries() -> None:
    """Keep back the warnings of transformers; before the import."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def show_in_browser(page: Path) -> None:
    """Show a page in the browser."""
    address = page.absolute().as_uri()
    if not webbrowser.open(address):
        say(f"No browser could be started; open {address} in one.")


def tell_left_out(problems: Sequence[str]) -> None:
    """Print on stderr what was not read, and why."""
    if problems:
        more = f", and {len(problems) - _MOST_LEFT_OUT} more" if len(problems) > _MOST_LEFT_OUT else ""
        say(f"Left out {len(problems)}: {'; '.join(problems[:_MOST_LEFT_OUT])}{more}.")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout, with its schema and null for what is not known."""
    text = json.dumps(json_values({"schema": SCHEMA} | document), ensure_ascii=False, allow_nan=False)
    print(printable(text))


def print_notes(notes: Sequence[str]) -> None:
    """Print lines that break between words where a terminal is too narrow for them."""
    width = max(_width(), _NARROWEST)
    for line in (line for note in notes for line in note.splitlines() or [""]):
        print(textwrap.fill(printable(line), width, break_on_hyphens=False))


def print_table(table: PageTable) -> None:
    """Print a table: as wide as it needs to a file or pipe, within the width of a terminal; then its caption."""
    from statesize.report.table import table_text

    for line in table_text(replace(table, rows=table.rows[:_MOST_ROWS]), _width(), "--json", bars=True):
        print(line)
    if (more := len(table.rows) - _MOST_ROWS) > 0:
        print_notes([f"{more} rows more stand on the page and in --json."])
    print_notes(["", table.caption] if table.caption else [])


def print_page(page: ResultPage) -> None:
    """Print what a page found, its first table and its notes."""
    print_notes([page.finding, ""])
    print_table(page.tables[0])
    for title, notes in page.notes.items():
        print_notes(["", f"{title}:", *notes] if notes else [])


def show_page(page: ResultPage, document: dict[str, Any], printing: Reporting) -> None:
    """Write the page if it is wanted, and print it, or the document."""
    if printing.html is not None:
        page.write(printing.html)
        printing.tell_report()
    if printing.json:
        print_json(document)
    else:
        print_page(page)


def _width() -> int:
    """Columns of the terminal; many of a file or pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
