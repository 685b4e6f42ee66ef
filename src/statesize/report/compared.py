"""What is compared of several profiles: a row per model, and what makes the rows less comparable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, cast

import numpy as np
import xarray as xr

from statesize.codes import Code
from statesize.errors import InputError
from statesize.io.text import counted
from statesize.report.names import distinct, model_title
from statesize.report.words import left_out_note
from statesize.results.fields import MIDDLE_SHARES
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import (
    channels_of,
    keeps_everything,
    middle_bytes,
    middle_ceiling,
    stored_channels,
)

_MEANS = (
    "tss", "middle_entropy", "sinkless_entropy", "average_entropy", "average_relative_count",
    "average_relative_count_error", "norm", "state_utilisation", "ceiling_utilisation",
)  # fmt: skip
_SUMS = ("total_entropy", "total_relative_count", "total_relative_count_error", "readout_total_entropy")
"""Figures of layers that are averaged over the channels of a model, and those that are summed where they are known."""


@dataclass(frozen=True)
class ComparedModel:
    """One model's row; `statesize.results.fields.FIGURES` says what the numbers are, from `state_bytes` on."""

    model: str
    mixers: int  # that were measured
    channels: int  # of all of these
    sequences: int  # that it was measured over
    tokens: int  # of all of these
    state_bytes: float
    middle_bytes: float
    middle_entropy: float
    sinkless_entropy: float
    middle_ceiling: float
    middle_state_utilisation: float
    middle_ceiling_utilisation: float
    tss: float
    total_tss: float
    average_entropy: float
    average_entropy_error: float
    average_relative_count: float
    average_relative_count_error: float
    total_entropy: float
    total_entropy_error: float
    total_relative_count: float
    total_relative_count_error: float
    readout_total_entropy: float
    norm: float
    state_utilisation: float
    ceiling_utilisation: float


def compared_models(profiles: Sequence[Profiled]) -> tuple[ComparedModel, ...]:
    """A row per profile."""
    return tuple(map(_compared, profiles))


def _compared(profile: Profiled) -> ComparedModel:
    rows = profile.summary_rows()
    if not rows:
        raise InputError(f"The profile of {profile.model} holds no mixer; there is nothing to compare.")
    nodes, layers = [profile.mixer(name) for name in profile.mixers], comparable(profile)
    compared = [nodes[at] for at in layers]
    stored = [stored_channels(node, profile.group(row["layer"])) for node, row in zip(nodes, rows, strict=True)]
    figures = {name: model_mean(profile, [row[name] for row in rows]) for name in _MEANS}
    for name in _SUMS:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        figures[name] = sum(known) if known else math.nan
    if any(math.isnan(rows[at]["tss"]) for at in layers):
        figures["tss"] = math.nan
    # Numbers of whole layers have no size that they could be a share of.
    ceilings = [math.nan if _is_derived(profile) else middle_ceiling(node) for node in nodes]
    # Shares of caches and of states do not compare, so they stand in columns of their own.
    for share, of_cache in zip(MIDDLE_SHARES, (False, True), strict=True):
        some = [at for at in layers if keeps_everything(nodes[at]) == of_cache]
        held = model_mean(profile, ceilings, some)
        # What a layer of unknown size could hold is not what the text allows.
        is_known = held and not any(math.isnan(rows[at]["tss"]) for at in some)
        carried = [row["sinkless_entropy"] for row in rows]
        figures[share] = model_mean(profile, carried, some) / held if is_known else math.nan
    return ComparedModel(
        model=profile.model,
        mixers=len(rows),
        channels=sum(map(channels_of, nodes)),
        sequences=int(profile.tokens.sizes["sequence"]),
        tokens=int(profile.tokens["length"].sum()),
        state_bytes=float(sum(row["state_bytes"] for row in rows)),
        middle_bytes=sum(middle_bytes(node, profile.tokens["length"].values) for node in nodes),
        middle_ceiling=model_mean(profile, ceilings),
        total_tss=float(np.dot(stored, [row["tss"] for row in rows])),
        average_entropy_error=_summed([rows[at]["readout_total_entropy_error"] for at in layers], compared)
        / sum(map(channels_of, compared)),
        total_entropy_error=_summed([row["total_entropy_error"] for row in rows], nodes),
        **figures,
    )


def _summed(errors: Sequence[float], nodes: Sequence[xr.Dataset]) -> float:
    """The error of a sum over layers."""
    # Heads are drawn in each layer by itself; cuts are left out in all of them alike, so that their errors add up.
    left_out = any(int(np.diff(node["position"].values).max(initial=1)) > 1 for node in nodes)
    return sum(errors) if left_out else math.hypot(*errors)


def _is_derived(profile: Profiled) -> bool:
    return all(profile.mixer(name).attrs["kind"] == "derivative" for name in profile.mixers)


def _only_ends_differ(profiles: Sequence[Profiled]) -> bool:
    """Whether all read the same tokens but for the last one or two of each sequence."""
    tokens = [profile.tokens for profile in profiles]
    rows = [
        [ids[:length].tolist() for ids, length in zip(one["token_ids"].values, one["length"].values, strict=True)]
        for one in tokens
    ]
    # What is no token has the id −1.
    known = len({len(texts) for texts in rows}) == 1 and rows[0][0][0] >= 0
    return known and all(
        len([*takewhile(lambda at: len({*at}) == 1, zip(*texts, strict=False))]) >= max(map(len, texts)) - 2
        for texts in zip(*rows, strict=True)
    )


CUTS = ("positions", "past", "future")
"""The settings that say at which cuts a profile was measured, and over how much of past and future."""


def comparison_notes(profiles: Sequence[Profiled]) -> list[str]:
    """What makes the rows less comparable than they look, a sentence each."""
    attributes = [profile.attributes for profile in profiles]
    notes = [f"{profile.model}: {note}" for profile in profiles if (note := left_out_note(profile))]
    if len(profiles) == 1:
        notes.append("A comparison takes two profiles or more, and this is one.")
    derived = [_is_derived(profile) for profile in profiles]
    if any(derived) and not all(derived):
        without = ", ".join(profile.model for profile, one in zip(profiles, derived, strict=True) if one)
        notes.append(f"Numbers of whole layers ({without}) do not compare with those per channel of the other rows.")
    if len({str(facts["tokens_sha256"]) for facts in attributes}) > 1:
        notes.append(
            "The profiles are of the same texts but for the last tokens: behind the text of a file stands the model's "
            "end-of-text token, and not the file's last newline. A Python string is read as it is. Give both as "
            "pathlib.Path."
            if _only_ends_differ(profiles)
            else "The profiles are not of the same tokens: the texts differ, or the tokenizers cut them differently, "
            "and ESS depends on the input."
        )
        titles: dict[str, list[str]] = {}
        for one in distinct(profiles):
            titles.setdefault(str(one.attributes["tokens_sha256"]), []).append(model_title(one))
        alike = "; ".join(" and ".join(some) for some in titles.values() if len(some) > 1)
        notes[-1] += f" The same tokens were read by {alike}." if alike else ""
    for name in CUTS:
        given = [cast("dict[str, Any]", facts["settings"]).get(name) for facts in attributes]
        different = {"default" if value is None else str(value) for value in given}
        if len(different) > 1:
            notes.append(f"They were measured with different {name} ({', '.join(sorted(different))}).")
    thresholds = [facts["relative_tolerances"][:1] for facts in attributes]
    if any(first != thresholds[0] for first in thresholds):
        notes.append("Their first relative tolerances differ, so the counts above ρ times the largest do not compare.")
    for profile in profiles:
        sizes = [row["tss"] for row in profile.summary_rows() if row["kind"] != "derivative"]
        if unknown := sum(map(math.isnan, sizes)):
            notes.append(f"{profile.model} has no share: the state size of {counted(unknown, 'layer')} is unknown.")
    skipped = [one.model for one in profiles if one.not_measured or one.incomplete or one.limited(Code.PART)]
    if skipped:
        notes.append(f"Not all layers were measured as a whole of {', '.join(skipped)}; sums lack what was skipped.")
    return notes
