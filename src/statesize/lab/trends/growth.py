"""What `length` returns: how ESS of each layer and head grows with the context, about as a power of its length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import altair as alt
import numpy as np

from statesize.io.text import listed
from statesize.lab.trends.charts import levels_chart, place_axis
from statesize.lab.trends.points import JOINT, Numbers
from statesize.lab.trends.trend import AVERAGE, Trend
from statesize.measurement.chart import Row
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, mean_interval

LEVEL = 0.1
"""Exponent below which ESS has levelled off: less than 7 % more at twice the context."""
NEAR = 0.8
"""Share of the ceiling from which on ESS is near it."""
SHORT = 0.5
"""Share of a context's tokens from which on ESS grows with the length because it cannot pass them."""
Course: TypeAlias = Literal["grows", "levels off", "not clear"]


@dataclass(frozen=True)
class Exponent:
    """How ESS of a layer or head goes with the length n of the context: about as n to the power of this.

    Attributes:
        layer: The layer, or "average".
        unit: The head or channel; empty for the layer.
        whole: Exponent over all lengths up to the trained one: the slope of log ESS against log n, fitted in each
            piece, with an interval of 95 % by Student's t over the texts.
        last: The same over the last two of these lengths.
        course: "grows" where the interval of `last` lies above 0.1, "levels off" where it lies below, else "not clear".
    """

    layer: str
    unit: str
    whole: Interval
    last: Interval
    course: Course


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Growth(Trend):
    """ESS of the layers of a model after contexts of several lengths, the `places`.

    Attributes:
        model: Its name.
        future: Tokens after the cut.
        trained_length: Tokens of the sequences that the model was trained on; None where that is not known.
        sources: The number of the text of each piece; pieces of one text are one unit.
    """

    places: tuple[int, ...]
    model: str
    future: int
    trained_length: int | None
    sources: tuple[int, ...]

    title = "Effective state-size against the length of the context"
    kinds = ("lengths", "length")

    @property
    def about(self) -> str:
        """What the numbers of the table are, as far as they are there."""
        said: list[str] = []
        if len(self.trained) > 1:
            said.append("ESS goes about as the length of the context to the power of the exponent.")
            if self.enough:
                said.append(
                    "A layer or head grows where the interval of its exponent over the last two lengths lies above "
                    "0.1, and levels off where it lies below; where the interval leaves that open, it is not clear."
                )
        if any(map(self.near_ceiling, self.layers)):
            said.append(
                "A star marks layers that come within a fifth of the most that is possible: their course is that "
                "limit's."
            )
        return " ".join(said)

    @property
    def trained(self) -> tuple[int, ...]:
        """The lengths up to the trained one; all where that is not known."""
        return tuple(one for one in self.places if self.trained_length is None or one <= self.trained_length)

    def _ceiling(self, layer: str = AVERAGE) -> Numbers:
        """The most that state, context and future allow, (lengths,)."""
        tops = np.array(
            [
                [min(context, self.future, mixer.state_size) for mixer in point.mixers]
                for context, point in zip(self.places, self.points, strict=True)
            ],
            np.float64,
        )
        return self.averaged(tops) if layer == AVERAGE else tops[:, self.layers.index(layer)]

    @property
    def units(self) -> int:
        """How many different texts the pieces are of."""
        return len(set(self.sources))

    def near_ceiling(self, layer: str = AVERAGE) -> bool:
        """Whether its mean passes 80 % of the ceiling at a length that is fitted: then its course is that limit's."""
        count = len(self.trained)
        return bool((self.means(layer)[:count] > NEAR * self._ceiling(layer)[:count]).any())

    def exponent(self, layer: str = AVERAGE, unit: str = "") -> Exponent:
        """How entropy-ESS goes with the length, up to the trained one.

        Args:
            layer: One of `layers`, or "average".
            unit: A head or channel; empty takes the layer.

        Returns:
            The exponent; NaN with fewer than two lengths up to the trained one.
        """
        count = len(self.trained)
        values = self.values(layer, unit=unit or None)[:count]
        usable = (np.isfinite(values) & (values > 0)).all(0)
        known, sources = values[:, usable], np.array(self.sources)[usable].tolist()
        slopes = (_slopes(self.trained[first:], known[first:]) for first in (0, max(count - 2, 0)))
        whole, last = (mean_interval(each, sources) for each in slopes)
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
        """How the mean over all channels goes with the length, and how many heads grow."""
        means, fitted = self.means(), len(self.trained)
        last = fitted - 1 if fitted > 1 else -1
        goes = (
            f"Entropy-ESS of {self.model} goes from {means[0]:.1f} after {self.names[0]} tokens to {means[last]:.1f} "
            f"after {self.names[last]}"
        )
        if fitted < 2:
            return f"{goes}; no growth is fitted beyond the {self.trained_length} tokens that it was trained on."
        return f"{goes}, about as n^{self.exponent().whole:.2f}; {self._courses()}.{self._limits()}"

    def _courses(self) -> str:
        """How many heads still grow, as far as that can be told."""
        if not self.enough:
            return f"at least {FEWEST_TEXTS} texts are needed to tell which heads still grow"
        # What heads of one cache carry together is no head.
        heads = [one.course for one in self.exponents() if one.unit and not one.layer.endswith(JOINT)]
        words = {"grows": "still grow", "levels off": "level off", "not clear": "are not clear"}
        counts = ", ".join(f"{heads.count(course)} {told}" for course, told in words.items())
        return f"of {len(heads)} heads or channels {counts}"

    def _limits(self) -> str:
        """Where few tokens before or behind the cut are what limits ESS; empty where they are not."""
        # A state of fixed size may be the smaller limit.
        states = [max(mixer.state_size for mixer in point.mixers) for point in self.points]
        fitted = list(zip(self.trained, states, self.means(), strict=False))
        few = [str(length) for length, state, mean in fitted if SHORT * length < mean and length <= state]
        told = f" ESS after {listed(few)} tokens cannot pass {listed(few)}." if few else ""
        longest, state, _ = fitted[-1]
        if self.future < min(longest, state):
            told += f" ESS after {longest} tokens cannot pass the {self.future} tokens behind the cut."
        return told

    def _own(self) -> Row:
        exponents = [
            {"layer": one.layer, "unit": one.unit, "exponent": one.whole.value, "last": one.last.value}
            | {"exponent_interval": one.whole.ends, "last_interval": one.last.ends, "course": one.course}
            for one in self.exponents()
        ]
        own = {"model": self.model, "future": self.future, "excerpts": self.texts, "units": self.units}
        return {**own, "trained_length": self.trained_length, "exponents": exponents}

    def _of_layer(self, layer: str) -> Row:
        return {"ceiling": self._ceiling(layer), "near_ceiling": self.near_ceiling(layer)}

    def _charts(self) -> Iterator[tuple[str, alt.LayerChart, str]]:
        beyond = (
            "How long the sequences of its training were is not known, so all lengths are fitted."
            if self.trained_length is None
            else f"It was trained on sequences of {self.trained_length:,} tokens; longer contexts are orange, and no "
            "exponent is fitted across."
        )
        caption = (
            "Entropy-ESS at the cut. Each faint line is a layer, the strong one the mean over all channels, and the "
            "grey one the most that state, context and future allow. Each length reads the same "
            f"{self.texts} pieces of text up to the same cut, with the same {self.future} tokens behind it. {beyond}"
        )
        x = place_axis("Context (tokens)", logarithmic=True)
        layers, fitted = {layer: self.means(layer) for layer in self.layers}, len(self.trained)
        levels = levels_chart(x, self.places, self.means(), layers, fitted=fitted, ceiling=self._ceiling())
        yield "How does ESS grow with the context?", levels, caption

    def _rows(self) -> list[Row]:
        # Layers first, for the terminal shows so many rows.
        return [self._row(one) for one in sorted(self.exponents(), key=lambda one: bool(one.unit))]

    def _row(self, one: Exponent) -> Row:
        values = self.values(one.layer, unit=one.unit or None)
        star = " *" if not one.unit and self.near_ceiling(one.layer) else ""
        course = f", {one.course}" if one.last.ends else ""
        return {
            "layer": one.layer + star,
            "head": one.unit or "all",
            **({"exponent": f"{one.whole:+.2f}"} if len(self.trained) > 1 else {}),
            # With two lengths it is the same.
            **({"over the last two lengths": f"{one.last:+.2f}{course}"} if len(self.trained) > 2 else {}),
            **{f"ESS after {name}": float(row.mean()) for name, row in zip(self.names, values, strict=True)},
        }


def _slopes(lengths: tuple[int, ...], values: Numbers) -> Numbers:
    """Slope of log ESS, (lengths, texts), against log n, of each text; none with fewer than two lengths."""
    if len(lengths) < 2:
        return np.array([])
    logarithms = np.log(np.array(lengths, np.float64))
    centred = logarithms - logarithms.mean()
    return centred @ np.log(values) / (centred @ centred)
