"""`statesize study`: each study by its name, and the folder of one that is done."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from statesize.cli.app import app, register
from statesize.cli.shared.options import Page
from statesize.cli.shared.printing import TEXT, Printing
from statesize.lab.cli.study_grid import grid_command
from statesize.lab.cli.study_texts import text_command
from statesize.lab.studies.catalogue import STUDIES
from statesize.lab.studies.study import GridStudy

study = App(
    name="study", help_epilogue="Example:\n\n    statesize study statesize-study-regimes-smoke --html regimes.html"
)
for one in STUDIES:
    command = grid_command(one) if isinstance(one, GridStudy) else text_command(one)
    register(study, None, one.name, command, one.examples, one.help)


@study.default
def stored_study(folder: Path | None = None, /, *, html: Page = None, printing: Printing = TEXT) -> None:
    """Print what a study concluded, and write its page.

    Args:
        folder: Folder of a study that is done.
        html: File for its page.
        printing: What is printed.
    """
    from statesize.cli.shared.printing import SCHEMA, print_json, tell_page
    from statesize.io.text import printable
    from statesize.lab.studies.page.conclusion import read_saved
    from statesize.lab.studies.page.page import write_report
    from statesize.report import check_report_path

    if folder is None:
        app.help_print(["study"])
        return
    if html is not None:
        check_report_path(html)
    saved = read_saved(folder)
    if html is not None:
        write_report(folder, html)
        tell_page(html, printing, open_page=False)
    if printing.json:
        made = {"command": saved.command, "versions": saved.versions, "machine": saved.machine}
        print_json({"schema": SCHEMA, **saved.conclusion.to_dict(), **made})
    else:
        print("\n".join(map(printable, saved.conclusion.lines())))
