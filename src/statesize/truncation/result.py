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
        loss: Cross-entropy of the tokens after the cut, nats per token; NaN where it was not measured.
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
        bytes: Length of the tokens that are predicted, as UTF-8; None where it is not known.
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
    bytes: int | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> CutDocument:
        """The document that `json_values` wrote."""

        def known(fields: dict[str, Any]) -> dict[str, Any]:
            optional = "text", "bytes"
            return {name: math.nan if one is None and name not in optional else one for name, one in fields.items()}

        fields = known(values)
        fields["runs"] = tuple(CutRun(**known(run)) for run in values["runs"])
        return cls(**fields)

    @property
    def unit(self) -> int:
        """What is independent of other documents; pieces and cuts of one text are one unit."""
        return self.document if self.text is None else self.text

    @property
    def bits(self) -> float:
        """Bits per byte for each nat per token; NaN where bytes are not known."""
        return (self.tokens - self.cut - 1) / max(self.bytes, 1) / math.log(2) if self.bytes is not None else math.nan

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
        bits: The same in bits per byte; NaN where bytes are not known.
        share: The excess as a share of the context's worth; NaN where the context may be worth nothing.
        divergence: From the whole model's predictions, nats per token.
        divergence_share: That as a share of the divergence where nothing is kept.
    """

    rule: str
    scale: float
    kept: float
    stored: float
    excess: Interval
    bits: Interval
    share: Interval
    divergence: Interval
    divergence_share: Interval

    @property
    def cost(self) -> Interval:
        """The excess, by bytes where they are known."""
        return self.excess if math.isnan(self.bits.value) else self.bits

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
    caption: ClassVar[str]
    facts: ClassVar[tuple[str, ...]]  # what else its document has

    @property
    def texts(self) -> int:
        """Number of texts that the documents are pieces of, which are the units of all intervals."""
        return len({one.unit for one in self.documents})

    @property
    def counted(self) -> str:
        """The number of documents in words."""
        return texts_of(len({one.document for one in self.documents}), self.texts)

    @property
    def worth(self) -> Interval:
        """The context's worth in nats per token, by which loss is larger where nothing is kept."""
        return self.mean(lambda one: one.lost())

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
        found = [] if self.texts >= FEWEST_TEXTS else [Note(Code.FEW_TEXTS, f"no interval over {self.counted}.")]
        if not self.context_matters:
            found.append(Note(Code.WORTHLESS, f"{self.worth:.3f} nats per token."))
        return (*found, *self._own_limits())

    @property
    def legend(self) -> list[str]:
        """A line for each limit, with what helps."""
        return [f"{one.code.value}: {one} {one.code.cure}" for one in self.limits]

    @abstractmethod
    def plot(self) -> alt.LayerChart:
        """Draw what is lost against what is kept."""

    def table(self) -> PageTable:
        """A line a rule and size: what it keeps, and what that changes."""
        cells = self._cells()
        return PageTable("Each size", [*cells[0]], [[*one.values()] for one in cells], self.caption)

    def page(self) -> ResultPage:
        """The page: the chart, the table, and what limits the numbers."""
        caption = f"Over {self.counted}; below the dashed line hardly anything is lost."
        drawn = PageChart("What is lost against what is kept", self.plot().to_dict(), caption)
        return ResultPage(
            self.title.format(self.model), self.headline, [drawn], [self.table()], {"Limits": self.legend}
        )

    def row(self, index: int, looks: int = 1) -> Row:
        """The row of a run, its intervals such that so many hold together."""
        run, none = self.documents[0].runs[index], Interval(math.nan)
        kept = self.mean(lambda one: one.runs[index].kept).value
        return Row(
            run.rule, run.scale, kept, self._stored(index),
            excess=self.mean(lambda one: one.lost(index), looks),
            bits=self.mean(lambda one: one.lost(index) * one.bits, looks),
            share=self._share(CutDocument.lost, index) if self.context_matters else none,
            divergence=above_zero(self.mean(lambda one: one.runs[index].divergence, looks)),
            divergence_share=above_zero(self._share(lambda one, at: one.runs[at].divergence, index)),
        )  # fmt: skip

    def mean(self, number: Callable[[CutDocument], float], looks: int = 1) -> Interval:
        """The mean of a number over documents that have it, with an interval that holds for so many looks together."""
        found = [(number(one), one.unit) for one in self.documents]
        known = [(value, unit) for value, unit in found if not math.isnan(value)]
        return mean_interval(np.array([value for value, _ in known]), [unit for _, unit in known], looks)

    def to_dict(self) -> dict[str, Any]:
        """Means, intervals, limits, and each document's own numbers, as JSON values."""
        found = {name: getattr(self, name) for name in ("model", "headline", "worth", "texts", "rows", *self.facts)}
        return json_values(found | {"limits": [one.to_json() for one in self.limits], "measured": self.documents})

    @abstractmethod
    def _own_limits(self) -> Sequence[Note]: ...

    @abstractmethod
    def _stored(self, index: int) -> float:
        """What a run keeps of what is stored."""

    @abstractmethod
    def _cells(self) -> list[dict[str, str]]:
        """The lines of the table, by their headings."""

    def _change(self, row: Row) -> dict[str, str]:
        """What a row changes; few texts tell few digits."""
        share, nats = (".0%", "+.2f") if self.texts < FEWEST_TEXTS else (".1%", "+.4f")
        change = f"{row.divergence_share:{share}}" if row.kept or row.scale else "100%"
        return {"change": change, "extra nats per token": f"{row.excess:{nats}}"}

    def _share(self, lost: Callable[[CutDocument, int], float], index: int) -> Interval:
        """What a run loses of what that loses which keeps nothing, over documents that have both."""
        known = [one for one in self.documents if not math.isnan(lost(one, index))]
        more, without = (np.array([lost(one, at) for one in known]) for at in (index, 0))
        return ratio_interval(more, without, [one.unit for one in known])


def ends_of(lost: Interval) -> dict[str, float | None]:
    """What is lost as `vega.estimates` draws it."""
    return {"lost": lost.value, "low": finite(lost.low), "high": finite(lost.high)}
