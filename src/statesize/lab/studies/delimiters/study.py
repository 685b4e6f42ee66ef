"""The study of delimiters as a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from statesize.lab.studies.study import TextStudy

if TYPE_CHECKING:
    from torch import nn

    from statesize.lab.studies.delimiters.dips import ModelDips
    from statesize.lab.studies.delimiters.subjects import Subject
    from statesize.lab.studies.grid.run import Row


class _Delimiters(TextStudy["ModelDips"]):
    """Dips at delimiters and at all controls."""

    @property
    def conditions(self) -> tuple[str, ...]:
        from statesize.lab.studies.delimiters.sequences import CONDITIONS

        return CONDITIONS

    def measure(self, subject: Subject, options: Any, dips: Callable[[nn.Module | None], ModelDips]) -> ModelDips:
        del subject, options
        return dips(None)

    def tables(self, found: Sequence[ModelDips]) -> dict[str, list[Row]]:
        from statesize.lab.studies.delimiters.claim import curve_rows, dip_rows

        return {"table.parquet": dip_rows(found), "curves.parquet": curve_rows(found)}


DELIMITERS = _Delimiters(
    name="delimiters",
    help="""Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.

OUTPUT receives table.parquet (depths of models, layers and heads), curves.parquet and study.html; and what is finished
as parts/*.parquet, with one row a sequence, head and offset.""",
    examples=("statesize study delimiters", "statesize study delimiters gla --text docs.jsonl --delimiter newline"),
)
