"""What changes if less is kept past a cut: runs of documents, and rows with intervals over their texts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import altair as alt
import numpy as np

from statesize.codes import Code, Note
from statesize.io.json_values import json_values
from statesize.measurement.statistics import (
    FEWEST_TEXTS,
    Interval,
    above_zero,
    finite,
    mean_interval,
    ratio_interval,
    texts_of,
)
from statesize.report import vega
from statesize.report.result import Result
from statesize.report.result_page import PageChart, ResultPage
from statesize.report.table import PageTable

WORTHLESS = 0.01
"""Nats per token below which the context is worth nothing that could be lost."""


@dataclass(frozen=True)
class CutRun:
    """One run with a cut.

    Attributes:
        rule: Its rule, or the way in which a cache is made smaller.
        scale: Its size: a multiple of ESS, or a share of the tokens.
        kept: Mean numbers per channel, or tokens per cache, that are kept.
        loss: Cross-entropy of the tokens after the cut, nats per token.
        divergence: Kullback-Leibler divergence from the whole model's predictions there, nats per token.
    """

    rule: str
    scale: float
    kept: float
    loss: float
    divergence: float


@dataclass(frozen=True)
class CutDocument:
    """One document at one cut.

    Attributes:
        document: Its number.
        tokens: Its length L.
        cut: Position i.
        loss: Cross-entropy of the whole model, nats per token.
        entropy: Mean entropy-ESS per channel at the cut; NaN where it was not measured.
        ceiling: Mean of the largest rank that H_i can have.
        inputs: Mean of the inputs, or numbers of a state, of the past that can be kept.
        stored: The same over stored channels, which heads of a group share; NaN where layers share a cache.
        runs: All runs; the first keeps nothing.
        text: The text of which the document is a piece; None: its own.
    """

    document: int
    tokens: int
    cut: int
    loss: float
    entropy: float
    ceiling: float
    inputs: float
    stored: float
    runs: tuple[CutRun, ...]
    text: int | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> CutDocument:
        """The document that `json_values` wrote."""
        unknown: dict[str, Any] = {name: math.nan for name, value in values.items() if value is None}
        known: dict[str, Any] = {"text": values.get("text"), "runs": tuple(CutRun(**run) for run in values["runs"])}
        return cls(**{**values, **unknown, **known})

    @property
    def unit(self) -> int:
        """What is independent of other documents; pieces and cuts of one text are one unit."""
        return self.document if self.text is None else self.text

    def lost(self, index: int = 0) -> float:
        """What a run loses more than the whole model, nats per token; the first run keeps nothing."""
        return self.runs[index].loss - self.loss


@dataclass(frozen=True, repr=False)
class Row:
    """Means over documents of one rule at one size.

    Attributes:
        rule: As for `CutRun`.
        scale: As for `CutRun`.
        kept: Mean numbers per channel, or tokens per cache.
        stored: What is kept as a share of what is stored: of values, or of the bytes of a cache.
        excess: Loss more than the whole model's, nats per token.
        share: The excess as a share of the context's worth; NaN where the context may be worth nothing.
        divergence: From the whole model's predictions, nats per token.
        divergence_share: That as a share of the divergence where nothing is kept.
    """

    rule: str
    scale: float
    kept: float
    stored: float
    excess: Interval
    share: Interval
    divergence: Interval
    divergence_share: Interval

    def __repr__(self) -> str:
        return f"{self.rule} × {self.scale:g}: keeps {self.stored:.1%}, predictions change {self.divergence_share:.1%}"


@dataclass(frozen=True, repr=False)
class CutResult(Result):
    """Rows of an experiment.

    Attributes:
        model: Name of the model.
        documents: One entry per document and cut.
    """

    model: str
    documents: tuple[CutDocument, ...]
    title: ClassVar[str]
    caption: ClassVar[str] = "Change: how far predictions after the cut move; 100%: as far as if nothing is kept."
    needed: ClassVar[int] = FEWEST_TEXTS  # texts that give intervals
    of_stored: ClassVar[str]  # of what a share of what is stored is kept, as its table names it
    facts: ClassVar[tuple[str, ...]]  # what else its document has
    kept: ClassVar[tuple[str, str, str]]  # what of a row is kept, as its chart shows it: an attribute, title and format
    lost: ClassVar[tuple[str, str, str]]  # what is lost by that

    @property
    def texts(self) -> int:
        """Number of texts that the documents are pieces of, which are the units of all intervals."""
        return len({document.unit for document in self.documents})

    @property
    def counted(self) -> str:
        """The number of documents in words."""
        return texts_of(len({document.document for document in self.documents}), self.texts)

    @property
    def worth(self) -> Interval:
        """The context's worth in nats per token, by which loss is larger where nothing is kept."""
        return self.mean(lambda document: document.lost())

    @property
    def context_matters(self) -> bool:
        """Whether the context is surely worth something, so that shares of it are more than noise."""
        worth = self.worth
        return (worth.low if worth.ends else worth.value) > WORTHLESS

    @property
    def rows(self) -> tuple[Row, ...]:
        """One entry a rule and size, that of nothing kept first."""
        return tuple(map(self.row, range(len(self.documents[0].runs))))

    @property
    def limits(self) -> tuple[Note, ...]:
        """What limits the numbers."""
        few = Note(Code.FEW_TEXTS, f"no interval over {self.counted}; {self.needed} texts give it.")
        notes = [few] if self.texts < FEWEST_TEXTS else []
        if not self.context_matters:
            notes.append(Note(Code.WORTHLESS, f"{self.worth:.3f} nats per token."))
        return (*notes, *self._own_limits())

    @property
    def legend(self) -> list[str]:
        """A line for each limit, with what helps."""
        return [f"{note.code.value}: {note} {note.code.cure}" for note in self.limits]

    @property
    @abstractmethod
    def enough(self) -> float:
        """What is lost at most where hardly anything is."""

    def plot(self) -> alt.LayerChart:
        """Draw what is lost against what is kept: a mark for each row, a line for each rule."""
        (kept, share, of), (loss, change, shown) = self.kept, self.lost
        drawn = [(self._names(at), getattr(row, kept), getattr(row, loss)) for at, row in enumerate(self.rows)]
        rows = [
            {"of": line, "run": name, "kept": number, "lost": interval.value}
            | {"low": finite(interval.low), "high": finite(interval.high)}
            for (name, line), number, interval in drawn
            if number > 0 and not math.isnan(interval.value)
        ]
        x = alt.X("kept:Q", title=share, scale=vega.LOGARITHMIC, axis=alt.Axis(format=of))
        # Nearly linear below 1 %, where intervals reach 0.
        scale = alt.Scale(type="symlog", constant=0.01, nice=False, padding=10)
        y = alt.Y("lost:Q", title=change, scale=scale, axis=alt.Axis(format=shown))
        hints = [vega.hint("run", "kept"), vega.hint("kept", share, of), vega.hint("lost", change, shown)]
        return vega.estimates(rows, x, y, "of", hints, self.enough)

    def table(self) -> PageTable:
        """A line a rule and size: what it keeps, and what that changes; few texts tell few digits."""
        nats = "+.2f" if self.texts < FEWEST_TEXTS else "+.4f"
        cells = list[dict[str, str]]()
        for at, row in enumerate(self.rows):
            change = f"{row.divergence_share:.1%}" if row.kept or row.scale else "100%"
            cells.append({"kept": self._names(at)[0], "change": change, self.of_stored: f"{row.stored:.0%}"})
            cells[-1] |= {"extra nats per token": f"{row.excess:{nats}}"} | self._more_cells(row)
        caption = f"Over {self.counted} of {self.documents[0].tokens:,} tokens. {self.caption}"
        return PageTable("Each size", [*cells[0]], [[*line.values()] for line in cells], caption)

    def page(self) -> ResultPage:
        """The page: the chart, the table, and what limits the numbers."""
        caption = f"Over {self.counted}; below the dashed line hardly anything is lost."
        drawn = PageChart("What is lost against what is kept", self.plot().to_dict(), caption)
        title, limits = self.title.format(self.model), {"Limits": self.legend}
        return ResultPage(title, self.headline, [drawn], [self.table()], limits)

    def row(self, index: int, looks: int = 1) -> Row:
        """The row of a run, its intervals such that so many hold together."""
        run, none = self.documents[0].runs[index], Interval(math.nan)
        kept = self.mean(lambda document: document.runs[index].kept).value
        return Row(
            run.rule, run.scale, kept, self._stored(index),
            excess=self.mean(lambda document: document.lost(index), looks),
            share=self._share(CutDocument.lost, index) if self.context_matters else none,
            divergence=above_zero(self.mean(lambda document: document.runs[index].divergence, looks)),
            divergence_share=above_zero(self._share(lambda document, at: document.runs[at].divergence, index)),
        )  # fmt: skip

    def mean(self, number: Callable[[CutDocument], float], looks: int = 1) -> Interval:
        """The mean of a number over documents, with an interval that holds for so many looks together."""
        return mean_interval(np.array([number(document) for document in self.documents]), self._units, looks)

    def to_dict(self) -> dict[str, Any]:
        """Means, intervals, limits, and each document's own numbers, as JSON values."""
        facts = {name: getattr(self, name) for name in ("model", "headline", "worth", "texts", "rows", *self.facts)}
        return json_values(facts | {"limits": [note.to_json() for note in self.limits], "measured": self.documents})

    @abstractmethod
    def _own_limits(self) -> Sequence[Note]: ...

    @abstractmethod
    def _stored(self, index: int) -> float:
        """What a run keeps of what is stored."""

    @abstractmethod
    def _names(self, index: int) -> tuple[str, str]:
        """A run as tables name it, and as a chart names all runs of its line."""

    def _more_cells(self, row: Row) -> dict[str, str]:
        """What else the table has of a row, by the headings."""
        return {}

    @property
    def _units(self) -> list[int]:
        return [document.unit for document in self.documents]

    def _share(self, number: Callable[[CutDocument, int], float], index: int) -> Interval:
        """What a run loses of what that loses which keeps nothing."""
        more, without = (np.array([number(document, at) for document in self.documents]) for at in (index, 0))
        return ratio_interval(more, without, self._units)
