"""One self-contained HTML file: maps, curves, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from statesize.errors import FileError, InputError
from statesize.report.bars import bars_chart
from statesize.report.brush import brush_chart
from statesize.report.charts import layer_rows, positions_chart
from statesize.report.data import Extent, choose_extent, page_data
from statesize.report.diagnosis import diagnosis_section
from statesize.report.document import document, resource
from statesize.report.head_map import COLUMNS, map_chart
from statesize.report.provenance import provenance
from statesize.report.tables import comparison_section, layer_definitions, layer_table
from statesize.report.tolerance import spectrum_chart, tolerance_chart
from statesize.results.comparison import compare
from statesize.results.protocol import Profiled
from statesize.results.summary import unit_dim

SCRIPTS = ("draw.js", "packing.js", "positions.js", "map.js", "ladder.js", "table.js", "page.js")
MOST_BYTES = 2_000_000
"""Of a page, unless its table alone takes more."""
_SHARES = (1.0, 0.5, 0.25, 0.1)


def write_report(
    profiles: Sequence[Profiled], path: str | os.PathLike[str], recall: Mapping[str, float] | None = None
) -> Path:
    """Write one HTML file about one or several profiles; the same profiles give the same bytes.

    Args:
        profiles: What it shows, in this order; several are also put side by side.
        path: The file; replaced once the new one is complete.
        recall: As for `statesize.compare`.

    Returns:
        The file.

    Raises:
        InputError: If there is no profile.
        FileError: If the file cannot be written.
    """
    if not profiles:
        raise InputError("A report needs at least one profile; none was given.")
    path = Path(path)
    check_report_path(path)
    page = render(profiles, recall)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".statesize-", suffix=".html", dir=path.absolute().parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            # mkstemp makes files that only the owner can read; a report is as public as any other file of its owner.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def check_report_path(path: Path) -> None:
    """Refuse a place where no report can be written, before any work is done.

    Args:
        path: The file that would be made.

    Raises:
        FileError: If it is a folder, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file for the report.")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}. Give a file in a writable folder.") from error


def render(profiles: Sequence[Profiled], recall: Mapping[str, float] | None = None) -> str:
    """The page as text, with fewer positions where it would not be within MOST_BYTES.

    Args:
        profiles: What it shows.
        recall: As for `statesize.compare`.

    Returns:
        HTML.
    """
    page = ""
    for share in _SHARES:
        page = _page(profiles, choose_extent(profiles, share), recall)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def _page(profiles: Sequence[Profiled], extent: Extent, recall: Mapping[str, float] | None) -> str:
    names = list(dict.fromkeys(profile.model for profile in profiles))
    data = {
        "charts": {
            "layers": bars_chart(names).properties(datasets={"layers": layer_rows(profiles)}).to_dict(),
            "positions": positions_chart().to_dict(),
            "brush": brush_chart().to_dict(),
            "map": map_chart().to_dict(),
            "spectrum": spectrum_chart().to_dict(),
            "tolerance": tolerance_chart().to_dict(),
        },
        **page_data(profiles, extent),
    }
    title = f"Effective state-size of {', '.join(names)}"
    return document(title, _body(profiles, extent, title, recall), data, SCRIPTS)


def _body(profiles: Sequence[Profiled], extent: Extent, title: str, recall: Mapping[str, float] | None) -> str:
    replacements = {
        "title": escape(title),
        "comparison": comparison_section(compare(profiles, recall)) if len(profiles) > 1 else "",
        "diagnosis": diagnosis_section(profiles),
        "table": layer_table(profiles),
        "definitions": layer_definitions(profiles[0].attributes["relative_tolerances"]),
        "provenance": "".join(provenance(profile) for profile in profiles),
        "extent": escape(_extent_note(profiles, extent)),
        "map-extent": escape(_map_note(profiles)),
        "spectra-extent": escape(_spectra_note(profiles, extent)),
    }
    body = resource("page.html")
    for name, value in replacements.items():
        body = body.replace(f"<!-- {name} -->", value)
    return body


def _extent_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    notes: list[str] = []
    if extent.sequences < count:
        first = "is" if extent.sequences == 1 else f"{extent.sequences} are"
        notes.append(f"Of {count} sequences the first {first} drawn; the table covers all.")
    if extent.stride > 1:
        notes.append(f"One position in {extent.stride} is drawn.")
    if extent.head_stride > 1:
        notes.append(f"Single heads are drawn at one position in {extent.stride * extent.head_stride}.")
    if _most_units(profiles) > COLUMNS:
        notes.append(f"Of layers with more than {COLUMNS} measured heads or channels, that many are drawn singly.")
    return " ".join(notes)


def _spectra_note(profiles: Sequence[Profiled], extent: Extent) -> str:
    positions = max(profile.mixer(name).sizes["position"] for profile in profiles for name in profile.mixers)
    if extent.places >= positions - 1:
        return ""
    return f"The page holds {extent.places} positions of each sequence; the one nearest to your choice is shown."


def _map_note(profiles: Sequence[Profiled]) -> str:
    if _most_units(profiles) <= COLUMNS:
        return ""
    return f"A layer with more than {COLUMNS} measured heads or channels is drawn as {COLUMNS} cells, each their mean."


def _most_units(profiles: Sequence[Profiled]) -> int:
    mixers = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    return max((mixer.sizes[unit_dim(mixer)] for mixer in mixers), default=0)
