"""`statesize compare`: saved profiles side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from statesize.cli.output.printing import TEXT, Printing

if TYPE_CHECKING:
    from statesize.results.comparison import ComparedModel, Comparison


def compare(
    profiles: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    recall: Path | None = None,
    html: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Put profiles of several models side by side, one row a model.

    Args:
        profiles: Folders that `statesize profile --output` or `Profile.save` wrote.
        recall: What `statesize study recall --json` printed, kept in a file; adds the recall perplexity.
        html: File for a report that holds the table and all layers.
        printing: What is printed.
    """
    from statesize.cli.output.document import SCHEMA, known, print_json
    from statesize.cli.output.saved import read_profiles
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
        _print(found)


def read_recall(path: Path) -> dict[str, float]:
    """The recall perplexity of each model.

    Args:
        path: A JSON file with a list "models" of objects with "name" and "recall_perplexity", null where unknown.

    Returns:
        Perplexity by name, where it is known.

    Raises:
        FileError: If the file cannot be read or holds no such list.
    """
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


def _print(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True, width=1000, height=100)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    columns = [column for column in _COLUMNS if any(math.isfinite(_value(row, column[0])) for row in comparison.models)]
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    sign = "+-" if console.options.ascii_only else "±"
    for row in comparison.models:
        cells = [_text(row, name, form, sign) for name, _, form in columns]
        table.add_row(Text(row.model, style="bold"), *map(Text, cells))
    width = max(Measurement.get(console, console.options, table).maximum, 80)
    out = Console(highlight=False, markup=False, soft_wrap=True, width=width, height=100)
    out.print(table, crop=False, overflow="ignore")
    for note in comparison.notes:
        out.print(f"note: {note}")


_COLUMNS: Sequence[tuple[str, str, str]] = (
    ("state_bytes", "state\nbytes", "bytes"),
    ("tss", "TSS per\nchannel", ",.0f"),
    ("average_entropy", "average ESS\n(entropy)", ".1f"),
    ("average_relative_tolerance", "average ESS\n(relative)", ".1f"),
    ("total_tss", "total\nTSS", ",.0f"),
    ("total_entropy", "total ESS\n(entropy)", ",.0f"),
    ("total_relative_tolerance", "total ESS\n(relative)", ",.0f"),
    ("norm", "norm", ".3g"),
    ("utilisation", "utilisation\n(entropy)", ".0%"),
    ("modulation", "modulation\n(entropy)", ".0%"),
    ("norm_modulation", "modulation\n(norm)", ".0%"),
    ("recall_perplexity", "recall\nperplexity", ".2f"),
)


def _value(row: ComparedModel, name: str) -> float:
    return float(cast("float", getattr(row, name)))


def _text(row: ComparedModel, name: str, form: str, sign: str) -> str:
    from statesize.cli.output.table import byte_count

    value = _value(row, name)
    if not math.isfinite(value):
        return "-"
    if form == "bytes":
        return byte_count(value)
    error = float(getattr(row, f"{name}_error", 0.0))
    return format(value, form) + (f" {sign} {format(error, form)}" if error and math.isfinite(error) else "")
