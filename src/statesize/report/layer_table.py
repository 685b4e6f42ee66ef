"""The table of all layers, which is there without any script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import cast

from statesize.report.cells import figure_text, heading_cell, number_cell, share_cell
from statesize.results.protocol import Profiled
from statesize.results.summary import COLUMNS

HEADINGS = {
    "model": "Model",
    "layer": "Layer",
    "kind": "Kind",
    "tss": "TSS",
    "state_bytes": "State bytes",
    "average_entropy": "Average ESS, entropy",
    "average_relative_tolerance": "Average ESS, relative tolerance",
    "total_entropy": "Total ESS, entropy",
    "total_relative_tolerance": "Total ESS, relative tolerance",
    "norm": "Norm",
    "utilisation": "Utilisation",
}
_TEXTS = {"model", "layer", "kind"}
_WHOLE = {"tss", "state_bytes"}


def layer_table(profiles: Sequence[Profiled]) -> str:
    """One row a layer; cells of numbers carry them unrounded for sorting and for the CSV.

    Args:
        profiles: One a model.

    Returns:
        HTML.
    """
    bodies = "".join(
        f"<tr>{''.join(_cell(name, cast('object', row[name])) for name in HEADINGS)}</tr>"
        for profile in profiles
        for row in profile.summary_rows()
    )
    head = "".join(heading_cell(name, heading, name not in _TEXTS) for name, heading in HEADINGS.items())
    return f'<table id="rows"><thead><tr>{head}</tr></thead><tbody>{bodies}</tbody></table>'


def definitions(relative_tolerances: Sequence[float]) -> str:
    """What the columns of numbers are.

    Args:
        relative_tolerances: The profile's.

    Returns:
        HTML, entries of a definition list.
    """
    names = [name for name in HEADINGS if name not in _TEXTS]
    return "".join(
        f"<dt>{escape(HEADINGS[name])}</dt><dd>{escape(_definition(name, relative_tolerances))}</dd>" for name in names
    )


def _definition(name: str, rho: Sequence[float]) -> str:
    return COLUMNS[name].replace("ρ times", f"{rho[0]:g} times") if rho else COLUMNS[name]


def _cell(name: str, value: object) -> str:
    if isinstance(value, str):
        return f'<th scope="row">{escape(value)}</th>' if name == "model" else f"<td>{escape(value)}</td>"
    number = float(value)  # pyright: ignore[reportArgumentType]
    if name == "utilisation" and math.isfinite(number):
        return share_cell(number)
    return number_cell(number, f"{number:,.0f}" if name in _WHOLE else figure_text(number))
