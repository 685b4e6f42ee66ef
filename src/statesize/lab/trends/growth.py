"""ESS against the length of the context: exponents, and which heads still grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statesize.io.json_values import json_values
from statesize.io.text import facts_table
from statesize.lab.studies.statistics import of_mean
from statesize.lab.trends.trend import AVERAGE, JOINT, Numbers, Trend, metric_names
from statesize.measurement import vega
from statesize.measurement.chart import METRICS, Metric, Row, table
from statesize.measurement.statistics import Interval, over_texts, signed
from statesize.report.result_page import PageChart, PageTable, ResultPage

LEVEL = 0.1
"""Exponent below which ESS has levelled off: less than 7 % more at twice the context."""
NEAR = 0.8
"""Share of the ceiling from which on ESS is near it."""
Course: TypeAlias = Literal["grows", "levels off", "not clear"]


@dataclass(frozen=True)
class Exponent:
    """How ESS of a layer or head goes with the length n of the context: about as n to the power of this.

    Attributes:
        layer: The layer, or "average".
        unit: The head or channel; empty for the layer.
        whole: Exponent over all lengths up to the trained one: the slope of log ESS against log n, fitted in each
            excerpt, with an interval of 95 % by Student's t over the excerpts.
        last: The same over the last two of these lengths.
        course: "grows" where the interval of `last` lies above 0.1, "levels off" where it lies below, else "not clear".
    """

    layer: str
    unit: str
    whole: Interval
    last: Interval
    course: Course


@dataclass(frozen=True, eq=False, kw_only=True)
class Growth(Trend):
    """ESS of the layers of a model after contexts of several lengths.

    Attributes:
        model: Its name.
        lengths: Tokens of the contexts that were measured.
        future: Tokens after the cut.
        excerpts: How many pieces of text were read.
        trained_length: Tokens of the sequences that the model was trained on; None where that is not known.
        points: What was measured of each length.
        skipped: Lengths and layers that were not measured, and why.
        facts: Digest of the excerpts, settings, and versions.
        notes: What else is to know.
    """

    model: str
    lengths: tuple[int, ...]
    future: int
    excerpts: int
    trained_length: int | None

    @property
    def trained(self) -> tuple[int, ...]:
        """The lengths up to the trained one; all where that is not known."""
        return tuple(one for one in self.lengths if self.trained_length is None or one <= self.trained_length)

    def ceiling(self, layer: str = AVERAGE) -> Numbers:
        """The most that state, context and future allow.

        Args:
            layer: One of `layers`, or "average".

        Returns:
            (lengths,).
        """
        tops = np.array(
            [
                [min(context, self.future, mixer.state_size) for mixer in point.mixers]
                for context, point in zip(self.lengths, self.points, strict=True)
            ],
            np.float64,
        )
        if layer != AVERAGE:
            return tops[:, self.layers.index(layer)]
        alone = [not name.endswith(JOINT) for name in self.layers]
        weights = np.array([mixer.channels for mixer in self.points[0].mixers])[alone]
        return np.average(tops[:, alone], axis=1, weights=weights)

    def exponent(self, layer: str = AVERAGE, unit: str = "", metric: Metric | str = "entropy") -> Exponent:
        """How ESS goes with the length, up to the trained one.

        Args:
            layer: One of `layers`, or "average".
            unit: A head or channel; empty takes the layer.
            metric: "entropy", "relative_count" or "norm".

        Returns:
            The exponent; NaN with fewer than two lengths up to the trained one.
        """
        count = len(self.trained)
        values = self.values(layer, metric, unit or None)[:count]
        known = values[:, (np.isfinite(values) & (values > 0)).all(0)]
        slopes = [_slopes(self.trained[first:], known[first:]) for first in (0, max(count - 2, 0))]
        whole, last = (over_texts(of_mean(some).interval(), len(some)) for some in slopes)
        course = "grows" if last.low > LEVEL else "levels off" if last.high < LEVEL else "not clear"
        return Exponent(layer, unit, whole, last, course)

    def exponents(self) -> Iterator[Exponent]:
        """The growth of the average, of each layer, and of each head or channel."""
        yield self.exponent()
        for mixer in self.points[0].mixers:
            yield self.exponent(mixer.name)
            if len(mixer.units) > 1:
                yield from (self.exponent(mixer.name, unit) for unit in mixer.units)

    @property
    def finding(self) -> str:
        """How the mean over all channels goes with the length, and how many heads grow, in one sentence."""
        whole = self.exponent()
        # What heads of one cache carry together is no head.
        heads = [one for one in self.exponents() if one.unit and not one.layer.endswith(JOINT)]
        courses = ", ".join(
            f"{sum(one.course == course for one in heads)} {said}"
            for course, said in (("grows", "still grow"), ("levels off", "level off"), ("not clear", "are not clear"))
        )
        if not self.trained:
            return f"All lengths lie beyond the {self.trained_length} tokens that {self.model} was trained on."
        means, last = self.means(), self.trained[-1]
        return (
            f"Entropy-ESS of {self.model} goes from {means[0]:.1f} after {self.lengths[0]} tokens to "
            f"{means[len(self.trained) - 1]:.1f} after {last}, about as n^{signed(whole.whole, '.2f')}; of "
            f"{len(heads)} heads or channels {courses}.{self._window}"
        )

    def near_ceiling(self, layer: str = AVERAGE) -> bool:
        """Whether ESS comes near the most that state, context and future allow, so that its course is that limit's.

        Args:
            layer: One of `layers`, or "average".

        Returns:
            True where its mean passes 80 % of the ceiling at a length that is fitted.
        """
        count = len(self.trained)
        return bool((self.means(layer)[:count] > NEAR * self.ceiling(layer)[:count]).any())

    @property
    def _window(self) -> str:
        """What a future that is shorter than the contexts means; empty where it is not."""
        longest = max(self.trained, default=0)
        if self.future >= longest:
            return ""
        return (
            f" ESS after {longest} tokens cannot pass the {self.future} tokens behind the cut: the growth is what this "
            "window allows."
        )

    def to_dataframe(self) -> pd.DataFrame:
        """All numbers as a table.

        Returns:
            One row for each length, layer and excerpt; a column each for entropy, relative_count and norm.
        """
        rows = [
            {"model": self.model, "length": context, "layer": mixer.name, "kind": mixer.kind, "excerpt": excerpt}
            | {metric: values[excerpt] for metric, values in mixer.of_layer.items()}
            for context, point in zip(self.lengths, self.points, strict=True)
            for mixer in point.mixers
            for excerpt in range(self.excerpts)
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it.

        Returns:
            Numbers, text and lists by name; what is not known is None.
        """
        document = {
            "model": self.model,
            "lengths": [{"length": one, **row} for one, row in zip(self.lengths, self.mixer_rows(), strict=True)],
            "future": self.future,
            "excerpts": self.excerpts,
            "trained_length": self.trained_length,
            "layers": [
                {"name": layer, "ceiling": self.ceiling(layer), "near_ceiling": self.near_ceiling(layer)}
                | {name: self.means(layer, name) for name in metric_names()}
                for layer in (AVERAGE, *self.layers)
            ],
            "exponents": [
                {"layer": one.layer, "unit": one.unit, "exponent": one.whole.value, "last": one.last.value}
                | {"exponent_interval": one.whole.ends, "last_interval": one.last.ends, "course": one.course}
                for one in self.exponents()
            ],
        }
        return json_values(document | self._shared())

    def page(self) -> ResultPage:
        """What it shows.

        Returns:
            The finding, its chart, and a row a layer and head.
        """
        beyond = (
            "How long the sequences of its training were is not known, so all lengths are fitted."
            if self.trained_length is None
            else f"It was trained on sequences of {self.trained_length:,} tokens; longer contexts are orange, and no "
            "exponent is fitted across."
        )
        # Layers first, for the terminal shows so many rows.
        rows = [self._row(one) for one in sorted(self.exponents(), key=lambda one: bool(one.unit))]
        table = PageTable(
            "Layer by layer",
            list(rows[0]),
            [list(row.values()) for row in rows],
            "ESS goes about as the length of the context to the power of the exponent. Intervals of 95 % are by "
            "Student’s t over the excerpts. A layer or head grows where its exponent over the last two lengths lies "
            "above 0.1, and levels off where it lies below; where the interval leaves that open, it is not clear. A "
            "star marks layers that come within a fifth of the most that is possible: their course is that limit's.",
        )
        longer = ", ".join(f"{one:,}" for one in self.lengths if one not in self.trained)
        longer = longer and f"Beyond the trained length of {self.trained_length:,}: {longer}; not in the exponents."
        chart = vega.page_chart(growth_chart(self, self.lengths, len(self.trained), self.ceiling()))
        caption = (
            "Entropy-ESS at the cut. Each faint line is a layer, the strong one the mean over all channels, and the "
            "grey one the most that state, context and future allow. Each length reads the same "
            f"{self.excerpts} pieces of text up to the same cut, with the same {self.future} tokens behind it. {beyond}"
        )
        return ResultPage(
            title=f"Effective state-size of {self.model} against the length of the context",
            finding=self.finding,
            charts=[PageChart("How does ESS grow with the context?", chart, caption)],
            tables=[table],
            notes=self.left_out | {"Not in the exponents": [longer] if longer else []},
            facts={"Lengths": ", ".join(f"{one:,}" for one in self.lengths), **self.provenance},
        )

    def _row(self, one: Exponent) -> Row:
        values = self.values(one.layer, unit=one.unit or None)
        return {
            "layer": one.layer + (" *" if not one.unit and self.near_ceiling(one.layer) else ""),
            "head": one.unit or "all",
            "exponent": signed(one.whole),
            "over the last two lengths": f"{signed(one.last)}, {one.course}",
            **{f"ESS after {context}": float(row.mean()) for context, row in zip(self.lengths, values, strict=True)},
        }

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            f"after {one} tokens": f"{value:.1f}" for one, value in zip(self.lengths, self.means(), strict=True)
        }
        return facts_table(self.finding, facts)


def _slopes(lengths: tuple[int, ...], values: Numbers) -> NDArray[np.float64]:
    """Slope of log ESS, (lengths, excerpts), against log n, of each excerpt; none with fewer than two lengths."""
    if len(lengths) < 2:
        return np.array([])
    logarithms = np.log(np.array(lengths, np.float64))
    centred = logarithms - logarithms.mean()
    return centred @ np.log(values) / (centred @ centred)


def growth_chart(trend: Trend, lengths: Sequence[int], trained: int, ceiling: Numbers) -> alt.LayerChart:
    """ESS against the context on logarithmic axes; those beyond the first `trained` lengths apart."""
    inside, outside = slice(0, trained), slice(trained, None)

    def rows(layer: str, part: slice) -> Iterator[Row]:
        for row in table(length=lengths[part], ess=trend.means(layer)[part]):
            if row["ess"]:
                yield {"layer": layer, **row}

    tables = {
        "ceiling": table(length=lengths, ess=ceiling),
        "layers": [row for layer in trend.layers for row in rows(layer, inside)],
        "beyond": [row for layer in (AVERAGE, *trend.layers) for row in rows(layer, outside)],
        "mean": list(rows(AVERAGE, inside)),
    }
    x = alt.X("length:Q", title="Context (tokens)", scale=alt.Scale(type="log"))
    y = alt.Y("ess:Q", title=METRICS["entropy"], scale=alt.Scale(type="log"))
    hints = (vega.hint("layer", "layer"), vega.hint("length", "context", ",d"), vega.hint("ess", "ESS", ".2f"))
    return vega.layered(
        [
            ("ceiling", vega.line("ceiling", x, y)),
            ("single heads", vega.line("layers", x, y, by="layer", faint=True, points=True, hints=hints)),
            ("special token", vega.line("beyond", x, y, by="layer", points=True, hints=hints)),
            ("mean", vega.line("mean", x, y, points=True, hints=hints)),
        ],
        tables,
        legend=False,
    )
