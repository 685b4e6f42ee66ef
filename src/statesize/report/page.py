"""One self-contained HTML file: maps, curves, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from statesize.errors import InputError
from statesize.io.files import replace_file
from statesize.report.charts import network_charts, page_charts
from statesize.report.document import check_report_path, document, filled, filtered, section
from statesize.report.page_data import Extent, choose_extent, curves_note, map_note, page_data, spectra_note
from statesize.report.redundancy import Redundancy
from statesize.report.tables import comparison_section, group_section, layer_table, network_section, provenance
from statesize.report.words import metric_titles, model_title, sink_notes, words
from statesize.results.summary import Profiled

SCRIPTS = ("draw.js", "packing.js", "picture.js", "positions.js", "map.js", "ladder.js", "table.js", "page.js")
MOST_BYTES = 1_700_000
"""Largest size of a page, unless its table alone takes more."""
_SHARES = (1.0, 0.5, 0.25, 0.1)


def write_report(
    profiles: Sequence[Profiled],
    path: str | os.PathLike[str],
    recall: Mapping[str, float] | None = None,
    networks: Sequence[Redundancy] = (),
) -> Path:
    """Write one HTML file about one or several profiles; the same profiles give the same bytes.

    A path that cannot be written is a FileError.

    Args:
        profiles: What it shows, in this order; several are also put side by side.
        path: The file; replaced once the new one is complete.
        recall: As for `statesize.compare`.
        networks: Likewise.

    Returns:
        The file.

    Raises:
        InputError: If there is no profile.
    """
    if not profiles:
        raise InputError("profiles must hold at least one, got none.")
    path = Path(path)
    check_report_path(path)
    replace_file(path, render(profiles, recall, networks).encode())
    return path


def render(
    profiles: Sequence[Profiled], recall: Mapping[str, float] | None = None, networks: Sequence[Redundancy] = ()
) -> str:
    """The page as text, with fewer positions where it would not be within MOST_BYTES."""
    page = ""
    for share in _SHARES:
        page = _page(profiles, choose_extent(profiles, share), recall, networks)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def _page(
    profiles: Sequence[Profiled], extent: Extent, recall: Mapping[str, float] | None, networks: Sequence[Redundancy]
) -> str:
    title = f"Effective state-size of {', '.join(dict.fromkeys(map(model_title, profiles)))}"
    metrics = metric_titles(profiles)
    table, columns = layer_table(profiles)
    said = words(profiles, list(metrics))
    lines = f'<p class="lines">{said["lines"]}</p>'
    alone = len(profiles) == 1
    parts = {
        "lines": lines if alone else "",
        "comparison": "" if alone else comparison_section(profiles, recall, networks),
        "groups": group_section(profiles),
        "sinks": "".join(f"<p>{escape(note)}</p>" for note in sink_notes(profiles)),
        "networks": network_section(networks),
        "links": "" if alone else '<a href="#comparison-title">Side by side</a> ',
        "extent": escape(curves_note(profiles, extent)),
        "map-extent": escape(map_note(profiles)),
        "spectra-extent": escape(spectra_note(profiles, extent)),
    }
    body = [
        filled("views.html", parts),
        section("table", "All layers", f"{filtered(table)}{columns}"),
        section("provenance", "How these numbers were made", "".join(map(provenance, profiles))),
    ]
    # The headline of several models names two of them.
    head = f'<h1>{said["headline"]}</h1><p class="lead">{said["lead"]}</p>{"" if alone else lines}'
    data = {
        "metrics": metrics,
        "charts": page_charts(profiles, metrics) | network_charts(networks),
        **page_data(profiles, metrics, extent),
    }
    return document(title, head, "".join(body), data, SCRIPTS)
