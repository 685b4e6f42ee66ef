"""A row for each model, and what makes several rows less comparable than they look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from statesize.adapters.observation import DERIVATIVE
from statesize.codes import Code
from statesize.errors import InputError
from statesize.report.names import model_title
from statesize.report.words import left_out_note
from statesize.results.fields import MODELS, chosen
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import SummaryRow, channels_of, keeps_everything, middle_bytes, stored_channels

_MEANS = (
    "ess", "ess_error", "without_sink", "ceiling", "tss", "average_entropy", "average_relative_count",
    "average_relative_count_error", "norm", "state_utilisation", "ceiling_utilisation",
)  # fmt: skip
_SUMS = ("total_entropy", "total_relative_count", "total_relative_count_error")
CUTS = ("positions", "past", "future")
"""The settings that say at which cuts a profile was measured, and over how much of past and future."""


def model_row(profile: Profiled) -> SummaryRow:
    """A model's row: means over the channels of its layers, and sums of totals and bytes."""
    rows = profile.quantities
    if not rows:
        raise InputError(f"The profile of {profile.model} holds no mixer; there is nothing to compare.")
    nodes, kept = [profile.mixer(name) for name in profile.mixers], comparable(profile)
    stored = [stored_channels(node, profile.group(row["layer"])) for node, row in zip(nodes, rows, strict=True)]
    figures: dict[str, Any] = {name: model_mean(profile, [row[name] for row in rows]) for name in _MEANS}
    for name in _SUMS:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        figures[name] = sum(known) if known else math.nan
    if any(math.isnan(rows[at]["tss"]) for at in kept):
        figures["tss"] = math.nan
    # Shares of caches and of states do not compare, so they stand in columns of their own.
    for share, of_cache in (("share_of_state", False), ("share_of_ceiling", True)):
        some = [at for at in kept if keeps_everything(nodes[at]) == of_cache]
        held = model_mean(profile, [row["ceiling"] for row in rows], some)
        # What a layer of unknown size could hold is not what the text allows.
        is_known = held and not any(math.isnan(rows[at]["tss"]) for at in some)
        figures[share] = model_mean(profile, [row["ess"] for row in rows], some) / held if is_known else math.nan
    # Heads are drawn in each layer by itself; cuts are left out in all of them alike, so that their errors add up.
    gaps = any(int(np.diff(node["position"].values).max(initial=1)) > 1 for node in nodes)
    channels = [channels_of(nodes[at]) for at in kept]
    average = [rows[at]["average_entropy_error"] * each for at, each in zip(kept, channels, strict=True)]
    total = [row["total_entropy_error"] for row in rows]
    source = cast("dict[str, Any]", profile.attributes.get("source") or {})
    row = {
        "model": model_title(profile),
        "loss": source.get("loss", math.nan),
        "state_bytes": float(sum(row["state_bytes"] for row in rows)),
        "middle_bytes": sum(middle_bytes(node, profile.tokens["length"].values) for node in nodes),
        "total_tss": float(np.dot(stored, [row["tss"] for row in rows])),
        "average_entropy_error": (sum(average) if gaps else math.hypot(*average)) / max(sum(channels), 1),
        "total_entropy_error": sum(total) if gaps else math.hypot(*total),
        "limits": sorted({limit.code for limit in profile.codes}),
        **figures,
    }
    return chosen(MODELS, row)


def comparison_notes(profiles: Sequence[Profiled]) -> list[str]:
    """What makes the rows less comparable than they look, a sentence each."""
    attributes = [profile.attributes for profile in profiles]
    notes = [f"{profile.model}: {note}" for profile in profiles if (note := left_out_note(profile))]
    derived = [
        profile.model
        for profile in profiles
        if all(profile.mixer(name).attrs["kind"] == DERIVATIVE for name in profile.mixers)
    ]
    if 0 < len(derived) < len(profiles):
        without = ", ".join(derived)
        notes.append(f"Numbers of whole layers ({without}) do not compare with those per channel of the other rows.")
    if len({str(facts["tokens_sha256"]) for facts in attributes}) > 1:
        notes.append("The profiles are not of the same tokens, and ESS depends on the input.")
    for name in CUTS:
        given = [cast("dict[str, Any]", facts["settings"]).get(name) for facts in attributes]
        different = {"default" if value is None else str(value) for value in given}
        if len(different) > 1:
            notes.append(f"They were measured with different {name} ({', '.join(sorted(different))}).")
    if len({tuple(facts["relative_tolerances"][:1]) for facts in attributes}) > 1:
        notes.append("Their first relative tolerances differ, so the counts do not compare.")
    lacking = [
        profile.model
        for profile in profiles
        if profile.not_measured or profile.incomplete or profile.limited(Code.PART)
    ]
    if lacking:
        notes.append(f"Not all layers were measured as a whole of {', '.join(lacking)}; sums lack what was skipped.")
    kinds = {keeps_everything(profile.mixer(name)) for profile in profiles for name in profile.mixers}
    if len(kinds) > 1:
        notes.append("Shares of states do not compare with shares of caches, which grow with the text.")
    return notes
