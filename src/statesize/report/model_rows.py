"""A row for each model, and what makes rows less comparable than they look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from statesize.adapters.observation import DERIVATIVE
from statesize.codes import Code
from statesize.errors import InputError
from statesize.io.text import listed
from statesize.report.table import short_names
from statesize.report.words import model_title
from statesize.results.fields import LAYERS, MODELS, chosen, columns
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import SummaryRow, keeps_everything


def model_row(profile: Profiled) -> SummaryRow:
    """A model's row: means over the channels of its layers with means of their errors, and sums of totals and bytes."""
    rows = profile.quantities
    if not rows:
        raise InputError(f"The profile of {profile.model} holds no mixer; there is nothing to compare.")
    kept = comparable(profile)
    row: SummaryRow = {}
    for column in columns(MODELS):
        if LAYERS in column.tables and column.form not in ("text", "codes"):
            for name in (column.name, f"{column.name}_error")[: 1 + column.has_error]:
                figures = [layer[name] for layer in rows]
                known = [figure for figure in figures if math.isfinite(figure)]
                total = sum(known) if known else math.nan
                row[name] = total if column.unit == "numbers" else model_mean(profile, figures)
    if any(math.isnan(rows[at]["tss"]) for at in kept):
        row["tss"] = math.nan
    # Shares of caches and of states do not compare, so they stand in columns of their own.
    for share, of_cache in (("share_of_state", False), ("share_of_ceiling", True)):
        some = [at for at in kept if keeps_everything(profile.mixer(at)) == of_cache]
        ess, held = (model_mean(profile, [layer[name] for layer in rows], some) for name in ("ess", "ceiling"))
        # What a layer of unknown size could hold is not what the text allows.
        row[share] = ess / held if held and not any(math.isnan(rows[at]["tss"]) for at in some) else math.nan
    row |= {
        "model": model_title(profile),
        "loss": (profile.tree.attrs.get("source") or {}).get("loss", math.nan),
        "state_bytes": sum(layer["state_bytes"] for layer in rows),
        "limits": sorted({limit["code"] for limit in profile.codes}),
    }
    return chosen(MODELS, row)


def comparison_notes(profiles: Sequence[Profiled]) -> list[str]:
    """What makes the rows less comparable than they look, and what the averages leave out, a sentence each."""
    notes = list[str]()
    for profile in profiles:
        names, kept = [*short_names(profile.mixers).values()], comparable(profile)
        before = f"{profile.model}: " if len(profiles) > 1 else ""
        if all(row["kind"] == DERIVATIVE for row in profile.quantities):
            notes.append(f"{before}All layers were measured by their derivative: the numbers are of whole layers.")
        elif left_out := [name for at, name in enumerate(names) if at not in kept]:
            reason = "they have no T, or are a part of a layer that holds more"
            notes.append(f"{before}Averages are without {listed(left_out)}: {reason}.")
    settings: list[dict[str, Any]] = [profile.tree.attrs["settings"] or {} for profile in profiles]
    for name in ("positions", "past", "future"):
        different = sorted({"default" if (value := given.get(name)) is None else str(value) for given in settings})
        if len(different) > 1:
            notes.append(f"They were measured with different {name} ({', '.join(different)}).")
    if len({tuple(profile.tree.attrs["relative_tolerances"][:1]) for profile in profiles}) > 1:
        notes.append("Their first relative tolerances differ, so the counts do not compare.")
    lacking = [
        profile.model
        for profile in profiles
        if profile.not_measured or profile.incomplete or Code.PART in {entry["code"] for entry in profile.codes}
    ]
    if lacking and len(profiles) > 1:
        notes.append(f"Not all layers were measured as a whole of {', '.join(lacking)}; sums lack what was skipped.")
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    if len(profiles) > 1 and len(set(map(keeps_everything, nodes))) > 1:
        notes.append("Shares of states do not compare with shares of caches, which grow with the text.")
    return notes
