"""What `length` returns: how ESS of each layer and head grows with the context, about as a power of its length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, TypeAlias

import altair as alt
import numpy as np

from statesize.io.text import counted
from statesize.lab.trends.charts import levels_chart, place_axis
from statesize.lab.trends.points import JOINT, Numbers
from statesize.lab.trends.trend import AVERAGE, Trend, known_throughout
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, mean_interval, texts_of
from statesize.report.chart_tables import Row
from statesize.report.table import MOST_LAYERS, Shown, cell_text
from statesize.results.summary import known_mean

LEVEL = 0.1
"""Exponent below which ESS has levelled off: less than 7 % more at twice the context."""
NEAR = 0.8
"""Share of the ceiling from which on ESS is near it."""
_MOST_ESS = 8
"""Layers that a terminal shows of a model with many."""
FEWEST_LENGTHS = 3
"""Lengths from which on an exponent is fitted: a power law passes through any two points."""
Course: TypeAlias = Literal["grows", "levels off", "not clear"]
Shape: TypeAlias = Literal["power law", "slows down", "saturates", "near its ceiling", "not clear"]


@dataclass(frozen=True)
class Exponent:
    """How ESS of a layer or head goes with the length n of the context: about as n to the power of this.

    Attributes:
        layer: The layer, or "average".
        unit: The head or channel; empty for the layer.
        whole: Exponent over all lengths up to the trained one: the slope of log ESS against log n, fitted in each
            piece, with an interval of 95 % by Student's t over the texts; NaN with fewer than three lengths.
        last: The same over the last two of these lengths.
        course: "grows" where the interval of `last` lies above 0.1, "levels off" where it lies below, else "not clear".
        shape: Whether `whole` describes the growth. "near its ceiling" where the mean passes 80 % of the ceiling at a
            length that is fitted, else "power law" where that fits better than a curve that saturates; else "saturates"
            where `course` is "levels off", and "slows down" where it is not; "not clear" with fewer than three lengths
            or five texts.
    """

    layer: str
    unit: str
    whole: Interval
    last: Interval
    course: Course
    shape: Shape


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
        said = ["The ceiling is the most that the state, the tokens before the cut and those behind it allow."]
        if self._has_many_layers:
            said.append("Layers with most ESS at the last length stand first.")
        if self.fits:
            said.append(
                "exponent: ESS goes about as n^exponent. No exponent is told where a curve that saturates fits better: "
                "ESS saturates where it also levels off over the last two lengths, and else slows down. Nor is it told "
                "where ESS passes 80 % of its ceiling."
            )
        if self.enough and len(self.trained) > 1:
            said.append(
                "last two lengths: the exponent between them. A layer or head grows where the interval lies above 0.1 "
                "(7 % more at twice the context), and levels off where the interval lies below."
            )
        return " ".join(said)

    @property
    def trained(self) -> tuple[int, ...]:
        """The lengths up to the trained one; all where that is not known."""
        return tuple(one for one in self.places if self.trained_length is None or one <= self.trained_length)

    @property
    def fits(self) -> bool:
        """Whether there are enough lengths and texts for exponents."""
        return self.enough and len(self.trained) >= FEWEST_LENGTHS

    def _ceiling(self, layer: str = AVERAGE, unit: str = "") -> Numbers:
        """The most that state, context and future allow a layer, or one of its heads or channels, (lengths,)."""
        if layer == AVERAGE:
            return self.averaged(np.array([[mixer.ceiling for mixer in point.mixers] for point in self.points]))
        mixers = [point.mixers[self.layers.index(layer)] for point in self.points]
        return np.array([one.ceilings[one.units.index(unit)] if unit else one.ceiling for one in mixers])

    @property
    def units(self) -> int:
        """How many different texts the pieces are of that are known at all lengths."""
        return len(set(self._known_sources))

    @property
    def _known_sources(self) -> list[int]:
        """The number of the text of each piece that is known at all lengths."""
        return np.array(self.sources)[np.isfinite(self.values()).all(0)].tolist()

    def exponent(self, layer: str = AVERAGE, unit: str = "") -> Exponent:
        """How entropy-ESS goes with the length, up to the trained one.

        Args:
            layer: One of `layers`, or "average".
            unit: A head or channel; empty takes the layer.

        Returns:
            The exponent; NaN with fewer than three lengths up to the trained one.
        """
        count = len(self.trained)
        values = self.values(layer, unit=unit or None)[:count]
        usable = (np.isfinite(values) & (values > 0)).all(0)
        known, sources = values[:, usable], np.array(self.sources)[usable].tolist()
        slopes = (_slopes(self.trained[first:], known[first:]) for first in (0, max(count - 2, 0)))
        whole, last = (mean_interval(each, sources) for each in slopes)
        course = "grows" if last.low > LEVEL else "levels off" if last.high < LEVEL else "not clear"
        shape: Shape = "not clear"
        if self.fits and whole.ends is not None:
            means = known.mean(1)
            near = (means > NEAR * self._ceiling(layer, unit)[:count]).any()
            slower = "saturates" if course == "levels off" else "slows down"
            shape = "near its ceiling" if near else slower if saturates(self.trained, means) else "power law"
        return Exponent(layer, unit, whole if count >= FEWEST_LENGTHS else Interval(math.nan), last, course, shape)

    @cached_property
    def exponents(self) -> tuple[Exponent, ...]:
        """The growth of the average, of each layer, and of each of its heads or channels where there are several."""
        mixers = self.points[0].mixers
        units = ((one.name, unit) for one in mixers for unit in ("", *(one.units if len(one.units) > 1 else ())))
        return (self.exponent(), *(self.exponent(*unit) for unit in units))

    @property
    def finding(self) -> str:
        """How the mean over all channels goes with the length, and how many heads grow."""
        if self._no_average:
            return self._no_average
        means, ceilings, fitted, one = self.means(), self._ceiling(), len(self.trained), self.exponents[0]
        first, last = (
            f"{means[at]:.1f} of at most {cell_text(float(ceilings[at]))} after {self.names[at]} tokens"
            for at in (0, fitted - 1 if fitted > 1 else -1)
        )
        several = len(self.names) > 1
        goes = f"goes from {first} to {last}" if several else f"is {first}, the only length that was measured"
        goes = f"Entropy-ESS{self._chosen} {'in' if self._chosen else 'of'} {self.model} {goes}"
        said = f"{self._SHAPES[one.shape].format(one.whole)}."
        if self.enough and fitted > 1:
            # What heads of one cache carry together is no head.
            split = {mixer.name: len(mixer.units) > 1 for mixer in self.points[0].mixers if JOINT not in mixer.name}
            heads = [one.course for one in self.exponents if bool(one.unit) == split.get(one.layer)]
            words = {"grows": "growing", "levels off": "levelling off", "not clear": "not clear"}
            counts = [f"{heads.count(course)} {told}" for course, told in words.items() if course in heads]
            said += f" Of {len(heads):,} measured heads or channels, over the last two lengths: {', '.join(counts)}."
        known = self._known_sources
        if fitted < 2:
            beyond = f"; no growth is fitted beyond the {self.trained_length} tokens that it was trained on."
            said = beyond if several else "."
        elif not self.fits:
            got = f"{counted(fitted, 'length')} and {texts_of(len(known), self.units)}"
            said += f" An exponent takes {FEWEST_LENGTHS} lengths and {FEWEST_TEXTS} texts or more, got {got}."
        behind = f"{counted(self.future, 'token')} behind the cut"
        read = texts_of(self.texts, len(set(self.sources)))
        read += f", {len(known)} of them measured at all lengths" if len(known) < self.texts else ""
        measured = f"{self._measured()} heads or channels{self._of_layers}"
        return f"{goes}{said}\nRead: {read}, with {behind} in each. Measured: {measured}."

    _SHAPES: ClassVar[dict[Shape, str]] = {
        "power law": ", about as n^{:.2f}",
        "slows down": ". It slows down: a curve that saturates fits better than a power law, so no exponent is told",
        "saturates": ". A curve that saturates fits better than a power law, so no exponent is told",
        "near its ceiling": ", near the most that is possible",
        "not clear": "",
    }

    def _own(self) -> Row:
        exponents = [
            {"layer": one.layer, "unit": one.unit, "exponent": one.whole.value, "last": one.last.value}
            | {"exponent_interval": one.whole.ends, "last_interval": one.last.ends}
            | {"course": one.course, "shape": one.shape}
            for one in self.exponents
        ]
        own = {"model": self.model, "future": self.future, "excerpts": self.texts, "units": self.units}
        return {**own, "trained_length": self.trained_length, "exponents": exponents}

    def _of_layer(self, layer: str) -> Row:
        return {"ceiling": self._ceiling(layer)}

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
        # The average and layers first; of many layers, those with most.
        last = {one: -float(self.means(one)[-1]) for one in self.layers} if self._has_many_layers else {}
        rows = sorted(self.exponents, key=lambda one: (bool(one.unit), last.get(one.layer, -math.inf)))
        return [self._row(one) for one in rows]

    @property
    def _has_many_layers(self) -> bool:
        return len(self.layers) > MOST_LAYERS

    @property
    def telling_rows(self) -> int:
        """The number of rows read first, which are the average and the layers, or those with most ESS of many."""
        return 1 + (_MOST_ESS if self._has_many_layers else len(self.layers))

    def _row(self, one: Exponent) -> Row:
        means = known_mean(known_throughout(self.values(one.layer, unit=one.unit or None)), 1)
        told = f"{one.whole:+.2f}" if one.shape == "power law" else one.shape
        return {
            "layer": one.layer,
            "head": one.unit or self._measured(one.layer),
            **({"exponent": told} if self.fits else {}),
            **({"last two lengths": f"{one.last:+.2f}, {one.course}"} if one.last.ends else {}),
            **{
                f"ESS of ceiling\nafter {name}": Shown(mean, f"{cell_text(mean)} of {cell_text(ceiling)}")
                for name, mean, ceiling in zip(
                    self.names, means.tolist(), self._ceiling(one.layer, one.unit).tolist(), strict=True
                )
            },
        }


def saturates(lengths: Sequence[int], values: Numbers) -> bool:
    """Whether c n / (n + h) fits values (lengths,) better than c n^b does, by the squares of logarithms."""
    n, logarithms = np.array(lengths, np.float64), np.log(values)
    halves = lengths[0] / 100 * 10 ** np.linspace(0, math.log10(10_000 * lengths[-1] / lengths[0]), 1000)[:, None]
    power = np.polyval(np.polyfit(np.log(n), logarithms, 1), np.log(n))
    return bool((logarithms + np.log1p(halves / n)).var(1).min() < (logarithms - power).var())


def _slopes(lengths: tuple[int, ...], values: Numbers) -> Numbers:
    """Slope of log ESS, (lengths, texts), against log n, of each text; none with fewer than two lengths."""
    return np.polyfit(np.log(lengths), np.log(values), 1)[0] if len(lengths) > 1 else np.array([])
