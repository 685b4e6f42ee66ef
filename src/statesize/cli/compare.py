"""`statesize compare`: saved profiles side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from statesize.cli.shared.options import Flag
from statesize.cli.shared.printing import REPORTING, Reporting
from statesize.cli.shared.texts import check_all
from statesize.errors import InputError

if TYPE_CHECKING:
    from statesize.results.profiled import Profiled


def compare(
    profiles: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    wide: Flag = False,
    printing: Reporting = REPORTING,
) -> None:
    """Put profiles of several models side by side, one row per model.

    Args:
        profiles: Folders that `statesize profile --output` or `Profile.save` wrote.
        wide: Print all columns.
        printing: What is printed.

    Raises:
        InputError: There is one profile.
    """
    from statesize.results.place import require_profile

    *_, printing = check_all(
        *(partial(require_profile, folder, "each of PROFILES") for folder in profiles),
        partial(printing.named, "compared"),
    )
    if len(profiles) < 2:
        raise InputError(
            f"PROFILES must be the folders of two profiles or more, got 1. statesize profile {profiles[0]} shows one."
        )

    from statesize.cli.shared.printing import read_profiles
    from statesize.cli.shared.provenance import called_again
    from statesize.cli.shared.summary import comparison_page
    from statesize.cli.shared.table import show
    from statesize.report.comparison import compare
    from statesize.report.names import distinct

    # The names of folders, or their whole paths where some names are alike.
    names = [folder.absolute().name for folder in profiles]
    places = names if len(set(names)) == len(names) else [str(folder) for folder in profiles]
    loaded = distinct(read_profiles(profiles, printing), places)
    compared = compare(loaded)
    if printing.html is not None:
        with printing.step("drawing the report"):
            compared.to_html(printing.html)
        printing.tell_report()
    printed = comparison_page(loaded, compared, wide=wide)
    show(printed, {name: getattr(compared, name) for name in ("models", "notes", "finding")}, printing)
    if again := _measured_alike(profiles, loaded):
        for command in again:
            printing.next(*command, why=f"measures the text of {names[0]} at its cuts, so that they compare")
    elif printing.html is None:
        printing.next(*called_again("--open"), why="charts, layer by layer")
    else:
        printing.next("profile", profiles[0], "--open", why="the heads of one model")


def _measured_alike(folders: list[Path], profiles: Sequence[Profiled]) -> list[list[object]]:
    """A command for each other model that read other tokens, or at other cuts, to read those of the first as it did."""
    from statesize.cli.app import app
    from statesize.cli.shared.options import any_model, options_of
    from statesize.report.compared import CUTS

    facts = [one.attributes for one in profiles]
    read = [(one["tokens_sha256"], *(one["settings"].get(name) for name in CUTS)) for one in facts]
    sources = [cast("dict[str, str]", one.get("source") or {}) for one in facts]
    commands = [shlex.split(source.get("command", ""))[1:] for source in sources]
    spelt = ((one.tokens[name].values.ravel().tolist() for name in ("token_ids", "tokens")) for one in profiles)
    tokens = {pair for ids, texts in spelt for pair in zip(ids, texts, strict=True)}
    # Another tokenizer never makes the same tokens.
    if len(dict(tokens)) < len(tokens) or not all(command[:1] == ["profile"] for command in commands):
        return []
    with any_model():
        parsed = (app.parse_args(command, exit_on_error=False, print_error=False) for command in commands)
        first, *others = [bound.arguments for _, bound, _ in parsed]
    if "prefix" in first:
        return []
    again: list[list[object]] = []
    for at, own in enumerate(others, 1):
        if read[at] != read[0] and facts[at]["weights_sha256"] != facts[0]["weights_sha256"]:
            options = options_of(*filter(None, (first.get("texts"), first.get("measuring"), own.get("loading"))))
            output = f"{folders[at]}-as-{folders[0].absolute().name}"
            again.append(["profile", own["model"], *options, "--output", output])
    return again
