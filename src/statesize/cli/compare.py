"""`statesize compare`: saved profiles side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from statesize.cli.options.kinds import Flag
from statesize.cli.output.printing import TEXT, Printing


def compare(
    profiles: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    recall: Path | None = None,
    html: Path | None = None,
    wide: Flag = False,
    printing: Printing = TEXT,
) -> None:
    """Put profiles of several models side by side, one row a model.

    Args:
        profiles: Folders that `statesize profile --output` or `Profile.save` wrote.
        recall: What `statesize study recall --json` printed, kept in a file; adds the recall perplexity.
        html: File for a report that holds the table and all layers.
        wide: Print all columns.
        printing: What is printed.
    """
    from statesize.cli.output.document import SCHEMA, known, print_json
    from statesize.cli.output.saved import read_profiles
    from statesize.cli.output.summary import print_comparison
    from statesize.report import check_report_path, write_report
    from statesize.results.comparison import compare

    if html is not None:
        check_report_path(html)
    perplexities = None if recall is None else read_recall(recall)
    loaded = read_profiles(profiles, printing)
    found = compare(loaded, perplexities)
    if html is not None:
        with printing.step("drawing the report"):
            write_report(loaded, html, perplexities)
        printing.say(f"Report: {html}")
    if printing.json:
        models = [{name: known(value) for name, value in asdict(model).items()} for model in found.models]
        print_json({"schema": SCHEMA, "models": models, "notes": list(found.notes)})
    else:
        print_comparison(loaded, found, wide=wide)


def read_recall(path: Path) -> dict[str, float]:
    """The recall perplexity of each model, by name where it is known, from a document of `statesize study recall`."""
    from statesize.cli.output.document import SCHEMA
    from statesize.errors import FileError
    from statesize.files import parse_json, read_limited

    try:
        document: Any = parse_json(read_limited(path))
        schema = document.get("schema", SCHEMA)
        perplexities = {str(model["name"]): model["recall_perplexity"] for model in document["models"]}
        known = {name: float(value) for name, value in perplexities.items() if value is not None}
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(
            f'{path}: no JSON document with a list "models" of objects with "name" and "recall_perplexity", as '
            "`statesize study recall --json` prints it."
        ) from error
    if schema != SCHEMA:
        raise FileError(
            f"{path} is of schema version {schema!r}, and this statesize reads version {SCHEMA}. Make it anew, or use "
            "the version of statesize that wrote it."
        )
    return known
