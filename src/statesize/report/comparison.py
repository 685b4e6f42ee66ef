"""Several profiles side by side, the result of `statesize.compare`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import cast

import pandas as pd

from statesize.errors import InputError
from statesize.report.compared import ComparedModel, compared_models, comparison_notes
from statesize.report.document import cell_text, html_table, shown_headings
from statesize.report.names import distinct
from statesize.report.page import write_report
from statesize.report.result_page import PageTable
from statesize.report.tables import COMPARED, comparison_table
from statesize.report.words import capacity_use
from statesize.results.fields import MIDDLE_SHARES
from statesize.results.profiled import Profiled, has_sinks

_MAIN = (
    "model", "middle_bytes", "middle_entropy", "sinkless_entropy", "middle_ceiling", *MIDDLE_SHARES, "tss",
    "average_entropy", "state_utilisation", "ceiling_utilisation", "norm",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Profiles side by side, the result of `statesize.compare`.

    Attributes:
        models: One row a profile, in their order.
        notes: What makes the rows less comparable than they look, in words.
        finding: Which of them uses more of what it can hold, and how far that goes; "" where it has no answer.
        profiles: The profiles.
    """

    models: tuple[ComparedModel, ...]
    notes: tuple[str, ...]
    finding: str
    profiles: tuple[Profiled, ...] = field(compare=False)

    def to_dataframe(self, *, wide: bool = False) -> pd.DataFrame:
        """The rows as a table.

        Args:
            wide: All columns, totals and errors among them.

        Returns:
            One row a profile, with those fields of ComparedModel as columns that one reads first, or with all;
            ESS without sinks is among the first where a model has sinks.
        """
        table = pd.DataFrame([asdict(model) for model in self.models])
        sinks = any(map(has_sinks, self.profiles))
        main = [name for name in _MAIN if sinks or name != "sinkless_entropy"]
        return table if wide else cast("pd.DataFrame", table[main])

    def to_html(self, path: str | PathLike[str] = "compared.html") -> Path:
        """Write the page of `statesize compare --html`, one self-contained file.

        A path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        return write_report(self.profiles, path)

    def _table(self) -> PageTable:
        return comparison_table(self.models, distinct(self.profiles), COMPARED)

    def _repr_html_(self) -> str:
        told = (self.finding, *self.notes)
        said, *notes = (f"<p>{html.escape(note)}</p>" if note else "" for note in told)
        return "".join([said, html_table(self._table().headings, self._table().rows), *notes])

    def __repr__(self) -> str:
        """A row per model, what makes the rows less comparable, and what to do next.

        Returns:
            Lines of text.
        """
        table = self._table()
        # Where the middle is, the finding says.
        headings = [heading.replace(" at the middle", "") for heading in shown_headings(table.headings)]
        cells = pd.DataFrame([map(cell_text, row) for row in table.rows], columns=pd.Index(headings))
        lines = [self.finding, cells.to_string(index=False), *self.notes, "next: .to_dataframe(), .to_html()"]
        return "\n".join(filter(None, lines))


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
    models, notes = compared_models(profiles), tuple(comparison_notes(profiles))
    apart = distinct(profiles)
    models = tuple(replace(row, model=one.model) for row, one in zip(models, apart, strict=True))
    return Comparison(models, notes, capacity_use(apart), tuple(profiles))
