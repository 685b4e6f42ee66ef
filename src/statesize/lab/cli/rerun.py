"""`statesize rerun`: repeat a result from what it says of itself, and compare."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from statesize.cli.app import app
from statesize.cli.shared.options import Flag
from statesize.cli.shared.printing import TEXT, Printing

if TYPE_CHECKING:
    from statesize.io.recipe import Recipe
    from statesize.lab.rerun.result import Result

_REPEATED = frozenset({"profile", "study", "train"})
_OPTION = re.compile(r"--([a-z][a-z-]*)(=.*)?", re.DOTALL)
_CODE = frozenset({"module", "trust-remote-code", "allow-pickle"})


def rerun(
    result: Path,
    /,
    *,
    input: Annotated[list[Path] | None, Parameter(negative="")] = None,
    allow_code: Flag = False,
    printing: Printing = TEXT,
) -> None:
    """Repeat a result and say, part by part, whether the repetition is identical, within its bounds, or different.

    What the result was made of is read again, and refused where it is gone or has another hash. It must lie in the
    folder of the result, or be named by --input. The repetition is done
    on this machine, in a temporary folder, with the threads of the result. Bounds are those that profiles state;
    studies and trainings state none. The exit code is 1 where anything differs beyond them.

    Args:
        result: A profile, the folder of a study or a training, or a file of what `statesize profile --json` printed.
        input: A model, text or settings outside of the folder that the result lies in, which may be read. Repeat for
            several.
        allow_code: Run the Python code of --module and --trust-remote-code, and read the weights of --allow-pickle,
            where the result names them; for results that you made or trust.
        printing: What is printed.

    Raises:
        StatesizeError: The repetition differs beyond its bounds.
    """
    import tempfile

    from statesize.cli.shared.printing import SCHEMA, print_json
    from statesize.cli.shared.table import print_table
    from statesize.errors import StatesizeError
    from statesize.io.recipe import check_trust
    from statesize.lab.rerun.comparing import DIFFERENT
    from statesize.lab.rerun.result import changed_versions, check_inputs, read_result

    original = read_result(result)
    _check_command(original.recipe, result, allow_code=allow_code)
    check_trust(original.recipe, result.absolute().parent, input or ())
    check_inputs(original.recipe)
    printing.say(f"Repeating: {original.recipe.line}")
    with tempfile.TemporaryDirectory(prefix="statesize-rerun-") as folder:
        compared = original.compare(_repeat(original, Path(folder), quiet=printing.quiet))
    changes = changed_versions(original.recipe)
    if printing.json:
        parts = [asdict(one) for one in compared]
        print_json({"schema": SCHEMA, "result": str(result), "parts": parts, "changed_versions": changes})
    else:
        rows = [(one.part, one.verdict, one.detail) for one in compared]
        print_table(("part", "repetition", "differences"), rows, 3, [f"Other versions: {one}." for one in changes])
    different = sum(one.verdict == DIFFERENT for one in compared)
    if different:
        raise StatesizeError(f"{different} of {len(compared)} parts of {result} differ from their repetition.")


def _check_command(recipe: Recipe, result: Path, *, allow_code: bool) -> None:
    """Refuse a command that this package would not have written: results may come from strangers."""
    from statesize.errors import FileError
    from statesize.io.recipe import IGNORED_OPTIONS

    elsewhere = {name.replace("_", "-") for name in IGNORED_OPTIONS}
    options = [_OPTION.fullmatch(word) for word in recipe.command if word.startswith("-")]
    names = {option[1] for option in options if option is not None}
    if recipe.command[:1] and recipe.command[0] in _REPEATED and all(options) and not names & elsewhere:
        if allow_code or not names & _CODE:
            return
        risky = ", ".join(f"--{name}" for name in sorted(names & _CODE))
        raise FileError(
            f"{result} was made with {risky}, which runs code or reads pickles that the result names; if you trust "
            "where it comes from, give --allow-code."
        )
    raise FileError(f"{result} names a command that statesize does not repeat: {recipe.line[:200]}")


def _repeat(result: Result, folder: Path, *, quiet: bool) -> Path:
    """Do what made a result again; the file or folder that is of its kind."""
    from statesize.parallel.threads import torch_threads

    output, export, printed_document = folder / "result", folder / "export", folder / "told.json"
    where, printed = [f"--output={output}"] if result.has_folder else [], io.StringIO()
    where += ["--json"] if result.is_document else [f"--export={export}"] if result.is_export else []
    where += ["--quiet"] if quiet else []
    with torch_threads(result.recipe.threads), contextlib.redirect_stdout(printed):
        app([*result.recipe.command, *where], exit_on_error=False, print_error=False, result_action="return_value")
    printed_document.write_text(printed.getvalue(), encoding="utf-8")
    return printed_document if result.is_document else export if result.is_export else output
