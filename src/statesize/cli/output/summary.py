"""Profiles, plans and comparisons as tables on stdout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from statesize.cli.output.table import byte_count, number_text, print_table
from statesize.results.fields import COLUMNS, FIGURE_HEADINGS, FIGURES, GROUP_HEADINGS, HEADINGS, Heading
from statesize.results.groups import group_rows

if TYPE_CHECKING:
    from statesize.profiling import Plan, Profile
    from statesize.results.comparison import Comparison

_PLANNED = ("layer", "kind", "units", "measured", "at once", "positions", "engine", "memory", "seconds")


def print_summary(profiles: Sequence[Profile]) -> None:
    """Print one row a mixer, and below what was left out and how far the model was from the unaltered one."""
    groups = [profile.summary_rows() for profile in profiles]
    rows = [row for group in groups for row in group]
    shown = [name for name in COLUMNS if name in HEADINGS and name not in {"kind", "readout_total_entropy"}]
    # Columns that say nothing of these profiles are left out.
    if all(row["measured"] == row["units"] for row in rows):
        shown.remove("measured")
    for name in ("state_utilisation", "ceiling_utilisation", "faithfulness"):
        if not any(math.isfinite(row[name]) for row in rows):
            shown.remove(name)
    rho = profiles[0].attributes["relative_tolerances"]
    relative = f"σ > {rho[0]:g} σ₁" if rho else "relative tolerance"
    headings = [HEADINGS[name].text.replace("relative tolerance", relative) for name in shown]
    cells: list[list[str]] = []
    shares: list[float] = []
    for group in groups:
        if cells and group:
            cells.append([])
            shares.append(0.0)
        for row in group:
            measured = {**row, "measured": f"{row['measured']} of {row['units']}"}
            cells.append(_cells(measured, {name: HEADINGS[name] for name in shown}))
            shares.append(np.nanmax([row["state_utilisation"], row["ceiling_utilisation"], -1]))
    notes: list[str] = []
    for profile in profiles:
        name = f"{profile.model}: " if len(profiles) > 1 else ""
        notes += [f"{name}skipped: {part}: {reason}" for part, reason in profile.attributes["skipped"].items()]
        notes += [f"{name}{mixer}: {note}" for mixer, note in profile.notes.items()]
    differences = [row["run_difference"] for row in rows]
    if not all(map(math.isnan, differences)):
        largest = np.nanmax(differences)
        figure = f"{largest:.0e}" if largest else "0"
        notes.append(f"Last hidden state, observed against unaltered: largest difference {figure}.")
    shared = [row for profile in profiles for row in group_rows(profile)]
    print_table(headings, cells, 2, () if shared else notes, shares)
    if shared:
        headings = [heading.text.replace("relative tolerance", relative) for heading in GROUP_HEADINGS.values()]
        print()
        print("What heads that share a cache need together, a channel of the cache:")
        print_table(headings, [_cells(row, GROUP_HEADINGS) for row in shared], 2, notes)


def print_comparison(comparison: Comparison) -> None:
    """Print one row a model, of the figures that are known of any, and what makes them less comparable."""
    rows = [vars(model) for model in comparison.models]
    known = [name for name in FIGURES if any(math.isfinite(row[name]) for row in rows)]
    headings = {name: FIGURE_HEADINGS[name] for name in ("model", *known)}
    texts = [heading.text for heading in headings.values()]
    print_table(texts, [_cells(row, headings) for row in rows], 1, [f"note: {note}" for note in comparison.notes])


def _cells(row: Mapping[str, object], headings: Mapping[str, Heading]) -> list[str]:
    return [
        str(row[name])
        if heading.form == "text"
        else number_text(cast("float", row[name]), heading.form, cast("float", row.get(f"{name}_error", 0.0)))
        for name, heading in headings.items()
    ]


def print_plan(plan: Plan, loading: float) -> None:
    """Print what a profile would measure and cost, one row a mixer; loading the model took so many seconds."""
    rows = [
        (
            *(mixer.name, mixer.kind),
            *(f"{number:,}" for number in (mixer.units, mixer.measured, mixer.block, mixer.positions)),
            *(mixer.engine, byte_count(mixer.memory), f"{mixer.seconds:,.1f}"),
        )
        for mixer in plan.mixers
    ]
    notes = [f"skipped: {part}: {reason}" for part, reason in plan.skipped.items()]
    memory = "" if plan.memory is None else f", {byte_count(plan.memory)} of memory with the model"
    notes.append(
        f"{plan.spectra:,} spectra of {len(plan.mixers)} mixers over {plan.sequences:,} sequences, {plan.tokens:,} "
        f"tokens: about {plan.seconds:,.0f} s, after {loading:,.0f} s that loading took{memory}."
    )
    if plan.memory is not None:
        held = byte_count(plan.memory - 2 * plan.results)
        notes.append(f"With --output, {byte_count(plan.results)} of results lie on disk and {held} in memory.")
    if plan.sampled < plan.sequences:
        notes.append(f"Predicted from {plan.sampled} sequences of all parts of the corpus; the others were not read.")
    most = max((mixer.operations for mixer in plan.mixers), default=0.0)
    notes.append(
        f"Without --channels, all heads or channels of a mixer are measured while they cost at most "
        f"{plan.most_operations:.0e} operations a sequence; the largest here costs {most:.0e}."
    )
    print_table(_PLANNED, rows, 2, notes)
