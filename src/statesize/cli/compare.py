"""`statesize compare`: saved profiles side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from statesize.cli.shared.options import Flag
from statesize.cli.shared.printing import REPORTING, Reporting, print_json, print_notes, print_table
from statesize.errors import InputError, StatesizeError
from statesize.io.progress import Bar
from statesize.results.place import require_profile


def compare(
    profiles: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    wide: Flag = False,
    printing: Reporting = REPORTING,
) -> None:
    """Put profiles of several models side by side, one row per model.

    Args:
        profiles: Folders that `statesize profile` or `Profile.save` wrote.
        wide: Print all columns.
        printing: What is printed.

    Raises:
        ExceptionGroup: Some folders hold no profile.
        InputError: There is one profile.
    """
    refused = list[StatesizeError]()
    for folder in profiles:
        try:
            require_profile(folder, "each of PROFILES")
        except StatesizeError as error:
            refused.append(error)
    if refused:
        raise ExceptionGroup("several folders are none of profiles", refused)
    printing = printing.named("compared")
    if len(profiles) < 2:
        raise InputError(f"PROFILES must be two folders or more, got one. statesize profile {profiles[0]} shows it.")

    from statesize.profiling import Profile
    from statesize.report.comparison import compare
    from statesize.report.words import distinct

    # The names of folders, or their whole paths where some names are alike.
    names = [folder.absolute().name for folder in profiles]
    places = names if len(set(names)) == len(names) else [str(folder) for folder in profiles]
    with Bar("reading profiles"):
        compared = compare(distinct([Profile.load(folder) for folder in profiles], places))
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
