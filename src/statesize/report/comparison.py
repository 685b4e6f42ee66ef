"""Several profiles side by side, the result of `statesize.compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from statesize.adapters.observation import DERIVATIVE
from statesize.codes import Code
from statesize.errors import InputError
from statesize.io.json_values import json_values
from statesize.io.text import listed
from statesize.report.charts import along, layers
from statesize.report.names import distinct, model_title
from statesize.report.result import Result
from statesize.report.result_page import ResultPage
from statesize.report.table import PageTable, field_table
from statesize.report.words import comparison_headline, left_out_note
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


class ComparisonCharts:
    """Charts of several profiles.

    Args:
        profiles: The profiles.
    """

    def __init__(self, profiles: Sequence[Profiled]) -> None:
        self._profiles = profiles

    def layers(self) -> alt.LayerChart:
        """ESS of each layer of each model at the middle of the texts.

        Returns:
            The chart.
        """
        return layers(self._profiles)

    def positions(self) -> alt.LayerChart:
        """ESS of each model along the first text, the mean over its layers.

        Returns:
            The chart.
        """
        return along(self._profiles)

    __call__ = layers


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Profiles side by side, the result of `statesize.compare`.

    Attributes:
        profiles: The profiles, with names that differ.
        models: A row for each, by the names of `statesize.results.fields.COLUMNS`.
        notes: What makes the rows less comparable than they look, in words.
    """

    profiles: tuple[Profiled, ...] = field(compare=False)
    models: tuple[SummaryRow, ...]
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        """What each model carries past the same cut."""
        return comparison_headline(self.profiles)

    def table(self, *, wide: bool = False) -> PageTable:
        """The rows, in the order of the profiles.

        Args:
            wide: All columns.

        Returns:
            A table for a terminal or a page.
        """
        return field_table(MODELS, self.models, first=not wide)

    @property
    def legend(self) -> list[str]:
        """A line for each code of the table, with its models, and the notes."""
        models: dict[tuple[str, str], list[str]] = {}
        for profile in self.profiles:
            for limit in profile.codes:
                models.setdefault((limit.code, limit.sentence), []).append(model_title(profile))
        return [*(f"{code} ({listed(names)}): {said}" for (code, said), names in models.items()), *self.notes]

    @property
    def plot(self) -> ComparisonCharts:
        """The charts `.plot.layers()`, which `.plot()` gives, and `.plot.positions()`."""
        return ComparisonCharts(self.profiles)

    def page(self) -> ResultPage:
        """The page of all profiles.

        Returns:
            It, to be written.
        """
        from statesize.report.page import page

        return page(self.profiles)

    def to_html(self, path: str | PathLike[str] = "compared.html") -> Path:
        """Write the page, one self-contained file.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        return super().to_html(path)

    def to_dict(self) -> dict[str, Any]:
        """What `statesize compare --json` prints.

        Returns:
            JSON values.
        """
        return json_values({"headline": self.headline, "models": self.models, "notes": self.notes})

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a table.

        Returns:
            One row a profile, by the names of `statesize.results.fields.COLUMNS`.
        """
        return pd.DataFrame(list(self.models))


def compare(profiles: Sequence[Profiled]) -> Comparison:
    """Put profiles of several models side by side.

    Args:
        profiles: At least one; of the same texts, or the notes say that they are not.

    Returns:
        The comparison.

    Raises:
        InputError: If there is no profile, one without a mixer, or something else.
    """
    if isinstance(profiles, Profiled):
        raise InputError("profiles must be one list, got a Profile. Write compare([first, second]).")
    if not isinstance(profiles, Sequence) or not all(isinstance(held, Profiled) for held in profiles):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"profiles must be a list of Profiles, got {profiles!r:.200}. Read saved ones with ss.Profile.load."
        )
    if not profiles:
        raise InputError("profiles must hold at least one, got none.")
    apart = tuple(distinct(profiles))
    return Comparison(apart, tuple(map(model_row, apart)), tuple(comparison_notes(apart)))
