"""Several profiles side by side: a row for each model, what does not compare, and `statesize.compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from statesize.adapters.observation import DERIVATIVE
from statesize.check import refuse
from statesize.codes import Code
from statesize.errors import InputError
from statesize.io.json_values import json_values
from statesize.io.text import listed
from statesize.report.result import Result
from statesize.report.table import PageTable, field_table, short_names
from statesize.report.words import comparison_headline, distinct, model_title
from statesize.results.fields import LAYERS, MODELS, chosen, columns
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import SummaryRow, keeps_everything

if TYPE_CHECKING:
    from statesize.report.charts import Charts
    from statesize.report.result_page import ResultPage


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Profiles side by side, the result of `statesize.compare`.

    Attributes:
        profiles: The profiles, with names that differ.
        models: A row for each, by the names of `statesize.results.fields.FIELDS`.
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
        """The rows, in the order of the profiles, in the columns that are read first, or in all of them."""
        return field_table(MODELS, self.models, first=not wide)

    @property
    def legend(self) -> list[str]:
        """A line for each code of the table, with its models, and the notes."""
        models: dict[tuple[str, str], list[str]] = {}
        for profile in self.profiles:
            for limit in profile.codes:
                models.setdefault((limit["code"], limit["sentence"]), []).append(model_title(profile))
        return [*(f"{code} ({listed(names)}): {said}" for (code, said), names in models.items()), *self.notes]

    @property
    def plot(self) -> Charts:
        """The charts `.plot.layers()`, which `.plot()` gives, and `.plot.positions()`."""
        from statesize.report.charts import Charts

        return Charts(self.profiles)

    def page(self) -> ResultPage:
        """The page of all profiles."""
        from statesize.report.page import page

        return page(self.profiles)

    def to_dict(self) -> dict[str, Any]:
        """What `statesize compare --json` prints, of JSON values."""
        return json_values({"headline": self.headline, "models": self.models, "notes": self.notes})

    def to_dataframe(self) -> pd.DataFrame:
        """The rows, one a profile, by the names of `statesize.results.fields.FIELDS`."""
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
    given = profiles if isinstance(profiles, Sequence) else ()  # pyright: ignore[reportUnnecessaryIsInstance]
    if not given or not all(isinstance(profile, Profiled) for profile in given):  # pyright: ignore[reportUnnecessaryIsInstance]
        refuse("profiles", "a list of Profiles", profiles, "Read saved ones with ss.Profile.load.")
    apart = tuple(distinct(profiles))
    return Comparison(apart, tuple(map(model_row, apart)), tuple(comparison_notes(apart)))


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
        if profile.not_measured or profile.incomplete or profile.limited(Code.PART)
    ]
    if lacking and len(profiles) > 1:
        notes.append(f"Not all layers were measured as a whole of {', '.join(lacking)}; sums lack what was skipped.")
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    if len(profiles) > 1 and len(set(map(keeps_everything, nodes))) > 1:
        notes.append("Shares of states do not compare with shares of caches, which grow with the text.")
    return notes
