"""`statesize report`: HTML from saved profiles, or from a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from statesize.cli.output.printing import TEXT, Printing


def report(
    results: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    output: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Write the HTML report of a profile, of several profiles side by side, or of a study.

    Args:
        results: Folders that `statesize profile --output` or `Profile.save` wrote, or one of `statesize study`.
        output: The report; the first folder's name with .html in the current folder by default.
        printing: What is printed.

    Raises:
        InputError: A study is not alone.
    """
    from statesize.cli.output.document import SCHEMA, print_json
    from statesize.errors import InputError
    from statesize.report import check_report_path

    path = output or Path(f"{results[0].absolute().name}.html")
    check_report_path(path)
    studies = [folder for folder in results if (folder / "study.json").is_file()]
    if not studies:
        from statesize.cli.output.printing import read_profiles
        from statesize.report import write_report

        profiles = read_profiles(results, printing)
        with printing.step("drawing the report"):
            write_report(profiles, path)
    elif len(results) == 1:
        from statesize.laboratory import write_study_report

        write_study_report(results[0], path)
    else:
        raise InputError(f"A study has a report of its own, got {studies[0]} beside other folders. Give it alone.")
    printing.say(f"Report: {path}")
    if printing.json:
        print_json({"schema": SCHEMA, "report": str(path)})
