"""`statesize compare`: saved profiles side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from statesize.cli.shared.options import Flag
from statesize.cli.shared.printing import REPORTING, Reporting, print_json, print_notes, print_table
from statesize.errors import InputError, StatesizeError
from statesize.io.progress import Bar
from statesize.results.place import profiles_in, require_profile


def compare(
    profiles: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    wide: Flag = False,
    printing: Reporting = REPORTING,
) -> None:
    """Put profiles of several models side by side, one row per model.

    Args:
        profiles: Folders that `statesize profile` or `Profile.save` wrote, or a folder of several.
        wide: Print all columns.
        printing: What is printed.

    Raises:
        ExceptionGroup: Some folders hold no profile.
        InputError: There is one profile.
    """
    refused = list[StatesizeError]()
    folders = [inner for folder in profiles for inner in profiles_in(folder) or [folder]]
    for folder in folders:
        try:
            require_profile(folder, "each of PROFILES")
        except StatesizeError as error:
            refused.append(error)
    if refused:
        raise ExceptionGroup("several folders are none of profiles", refused)
    printing = printing.named("compared")
    if len(folders) < 2:
        raise InputError(f"PROFILES must be two profiles or more, got one. statesize profile {folders[0]} shows it.")

    from statesize.profiling import Profile
    from statesize.report.comparison import compare
    from statesize.report.words import distinct

    with Bar("reading profiles"):
        places = [folder.absolute().name for folder in folders]
        compared = compare(distinct([Profile.load(folder) for folder in folders], places))
    if printing.html is not None:
        with Bar("drawing the page"):
            compared.to_html(printing.html)
        printing.tell_report()
    if printing.json:
        print_json(compared.to_dict())
        return
    print_notes([compared.headline, ""])
    print_table(compared.table(wide=wide))
    print_notes(["", *compared.legend] if compared.legend else [])
