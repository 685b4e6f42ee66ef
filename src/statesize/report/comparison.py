"""Several profiles side by side: a row for each model, what does not compare, and `statesize.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from statesize.check import refuse
from statesize.io.json_values import json_values
from statesize.io.text import listed
from statesize.report.model_rows import comparison_notes, model_row
from statesize.report.result import Result
from statesize.report.table import PageTable, field_table
from statesize.report.words import comparison_headline, distinct, model_title
from statesize.results.fields import MODELS
from statesize.results.profiled import Profiled
from statesize.results.summary import SummaryRow

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
    all_numbers = ".summary()"

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

    def summary(self) -> pd.DataFrame:
        """One row per profile; `statesize.results.fields.FIELDS` says what the columns are."""
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
