"""What series and lengths return: ESS of each layer at each point, over the same texts; one table and one page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import altair as alt
import numpy as np
import pandas as pd

from statesize.check import refuse
from statesize.io.json_values import json_values
from statesize.lab.trends.charts import change_chart, levels_chart, log_charts, place_axis
from statesize.lab.trends.checkpoints import Log
from statesize.lab.trends.points import JOINT, MEASURED, Numbers, Point
from statesize.measurement import vega
from statesize.measurement.chart import Metric, Row
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, between, mean_interval, signed
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.results.summary import known_mean

AVERAGE = "average"
"""The mean over all layers, each channel with the same weight."""
LEVEL = 0.1
"""Exponent below which ESS has levelled off: less than 7 % more at twice the context."""
NEAR = 0.8
"""Share of the ceiling from which on ESS is near it."""
Course: TypeAlias = Literal["grows", "levels off", "not clear"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Trend(ABC):
    """ESS of the layers of a model at several points, over the same texts.

    Attributes:
        names: The points that were measured, as tables call them.
        places: Steps of the training, None where they are not known; or tokens of the context.
        points: What was measured of each.
        skipped: Points and layers that were not measured, and why.
        facts: Digest of the tokens, settings, and versions.
        notes: What else is to know, such as that a log could not be read.
    """

    names: tuple[str, ...]
    places: tuple[int, ...] | None
    points: tuple[Point, ...]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    title: ClassVar[str]
    """Title of the page."""
    kinds: ClassVar[tuple[str, str]]
    """What the points and their places are, ("checkpoints", "step") or ("lengths", "length")."""
    about: ClassVar[str]
    """What the numbers of the table are."""

    @property
    @abstractmethod
    def finding(self) -> str:
        """What it shows, in one or two sentences."""

    @abstractmethod
    def _charts(self) -> Iterator[tuple[str, alt.LayerChart, str]]:
        """Titles, charts and captions of the page."""

    @abstractmethod
    def _rows(self) -> list[Row]:
        """The table of the page."""

    @abstractmethod
    def _own(self) -> Row:
        """What its JSON document has beside that of other trends."""

    @abstractmethod
    def _of_layer(self, layer: str) -> Row:
        """The same of a layer."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the mixers; those ending in ", joint" are what heads that share a cache carry together."""
        return tuple(mixer.name for mixer in self.points[0].mixers)

    @property
    def texts(self) -> int:
        """How many texts each point read."""
        return len(self.points[0].mixers[0].of_layer["entropy"])

    def values(self, layer: str = AVERAGE, metric: Metric | str = "entropy", unit: str | None = None) -> Numbers:
        """ESS of a layer at each point over each text, averaged over positions and heads.

        Args:
            layer: One of `layers`, or "average".
            metric: "entropy", "relative_count" or "norm".
            unit: A head or channel, such as "head 0"; None takes the layer.

        Returns:
            (points, texts).
        """
        if metric not in MEASURED:
            refuse("metric", f"one of {', '.join(MEASURED)}", metric)
        if layer != AVERAGE and layer not in self.layers:
            refuse("layer", f"one of {', '.join((AVERAGE, *self.layers))}", layer)
        if layer == AVERAGE:
            return self._averaged(np.array([[one.of_layer[metric] for one in point.mixers] for point in self.points]))
        mixers = [point.mixers[self.layers.index(layer)] for point in self.points]
        if unit is None:
            return np.array([mixer.of_layer[metric] for mixer in mixers], np.float64)
        if unit not in mixers[0].units:
            refuse("unit", f"one of {', '.join(mixers[0].units)}", unit)
        column = mixers[0].units.index(unit)
        return np.array([mixer.of_units[metric] for mixer in mixers], np.float64)[..., column]

    def _averaged(self, values: Numbers) -> Numbers:
        """The mean over layers of (points, layers, …), without what heads carry together."""
        alone = [column for column, name in enumerate(self.layers) if not name.endswith(JOINT)]
        weights = [self.points[0].mixers[column].channels for column in alone]
        return np.average(values[:, alone], axis=1, weights=weights)

    def means(self, layer: str = AVERAGE, metric: Metric | str = "entropy") -> Numbers:
        """The same, averaged over texts.

        Args:
            layer: As for `values`.
            metric: As for `values`.

        Returns:
            (points,).
        """
        return known_mean(self.values(layer, metric), 1)

    def to_dataframe(self) -> pd.DataFrame:
        """All numbers as a table.

        Returns:
            One row for each point, layer and text; a column each for entropy, relative_count and norm.
        """
        rows = [
            {**label, "layer": mixer.name, "kind": mixer.kind, "text": text}
            | {metric: values[text] for metric, values in mixer.of_layer.items()}
            for label, point in zip(self._labels, self.points, strict=True)
            for mixer in point.mixers
            for text in range(self.texts)
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it.

        Returns:
            Numbers, text and lists by name; what is not known is None.
        """
        points = [
            {**label, "run_difference": one.run_difference, "seconds": one.seconds, "skipped": _reasons(one.skipped)}
            for label, one in zip(self._labels, self.points, strict=True)
        ]
        kinds = (AVERAGE, *(mixer.kind for mixer in self.points[0].mixers))
        layers = [
            {
                "name": layer,
                "kind": kind,
                **{metric: self.means(layer, metric) for metric in MEASURED},
                **self._of_layer(layer),
            }
            for layer, kind in zip((AVERAGE, *self.layers), kinds, strict=True)
        ]
        found = {"finding": self.finding, "skipped": _reasons(self.skipped), "notes": self.notes}
        return json_values({self.kinds[0]: points, "layers": layers, **self._own(), **found, **self.facts})

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write a page of one self-contained HTML file; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        return self.page().write(Path(path))

    def page(self) -> ResultPage:
        """What it shows.

        Returns:
            The finding, its charts, and a row a layer.
        """
        rows = self._rows()
        few = f"There are no intervals, which need at least {FEWEST_TEXTS} texts."
        told = f"Intervals of 95 % are by Student’s t over {self.texts} texts." if self._enough else few
        differences = [one.run_difference for one in self.points if np.isfinite(one.run_difference)]
        return ResultPage(
            title=self.title,
            finding=self.finding,
            charts=[PageChart(title, vega.page_chart(chart), caption) for title, chart, caption in self._charts()],
            tables=[
                PageTable("Layer by layer", list(rows[0]), [list(row.values()) for row in rows], f"{self.about} {told}")
            ],
            notes={
                "Not measured": [f"{name}: {reason}" for name, reason in self.skipped.items()],
                "Notes": list(self.notes),
            },
            facts={
                self.kinds[0].capitalize(): ", ".join(self.names),
                "Largest difference from an unaltered run": f"{max(differences):.1e}" if differences else "not checked",
                "Tokens, SHA-256": str(self.facts["tokens_sha256"]),
                "Versions": ", ".join(f"{name} {version}" for name, version in self.facts["versions"].items()),
            },
        )

    @property
    def _labels(self) -> list[Row]:
        """Name and place of each point."""
        places = self.places or [None] * len(self.names)
        return [{"name": name, self.kinds[1]: place} for name, place in zip(self.names, places, strict=True)]

    @property
    def _enough(self) -> bool:
        """Whether there are enough texts for intervals."""
        return self.texts >= FEWEST_TEXTS

    def __repr__(self) -> str:
        means = zip(self.names, self.means(), strict=True)
        return f"{self.finding}\nAll layers: {', '.join(f'{mean:.1f} at {name}' for name, mean in means)}"


def _reasons(skipped: Mapping[str, str]) -> list[dict[str, str]]:
    """What was not measured, as JSON documents name it."""
    return [{"name": name, "reason": reason} for name, reason in skipped.items()]


@dataclass(frozen=True)
class Change:
    """By how much a layer's ESS differs between two checkpoints, over the same texts.

    Attributes:
        before: Name of the first of the two.
        after: Name of the second.
        from_value: Mean over texts at the first.
        to_value: At the second.
        difference: Mean of the differences, with an interval of 95 % by Student's t over the texts; where it is the
            largest of several differences, corrected for all of them (Bonferroni).
    """

    before: str
    after: str
    from_value: float
    to_value: float
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON holds it.

        Returns:
            The names, the difference and its interval.
        """
        told = {"from": self.before, "to": self.after}
        return {**told, "difference": self.difference.value, "interval": self.difference.ends}

    def __str__(self) -> str:
        return f"from {self.from_value:.1f} at {self.before} to {self.to_value:.1f} at {self.after}"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Series(Trend):
    """ESS of the layers of a model at checkpoints of its training.

    Attributes:
        log: Losses and accuracies by step, where there is a log.
        tokens: How many each text has.
    """

    log: Log
    tokens: tuple[int, ...]

    title = "Effective state-size through a training"
    kinds = ("checkpoints", "step")
    about = "Differences are means over texts; that of the largest change is corrected for how many changes there are."

    def change(self, layer: str = AVERAGE) -> Change:
        """From the first checkpoint to the last.

        Args:
            layer: As for `values`.

        Returns:
            The change of its entropy-ESS.
        """
        return self._change(layer, 0, len(self.names) - 1)

    def largest_change(self, layer: str = AVERAGE) -> Change:
        """The largest change from one checkpoint to the next.

        Args:
            layer: As for `values`.

        Returns:
            The change of its entropy-ESS, with an interval for all changes together.
        """
        means = self.means(layer)
        after = int(np.nan_to_num(np.abs(np.diff(means))).argmax()) + 1 if len(means) > 1 else 0
        return self._change(layer, max(after - 1, 0), after, max(len(means) - 1, 1))

    def _change(self, layer: str, before: int, after: int, looks: int = 1) -> Change:
        values = self.values(layer)[[before, after]]
        first, second = values[:, np.isfinite(values).all(0)]
        difference = mean_interval(second - first, looks=looks)
        return Change(self.names[before], self.names[after], float(first.mean()), float(second.mean()), difference)

    @property
    def finding(self) -> str:
        """How the mean over all channels changes, and which layer changes most from one checkpoint to the next."""
        whole = self.change()
        if len(self.names) == 1:
            return f"Entropy-ESS is {whole.to_value:.1f} at {self.names[0]}, the only checkpoint that was measured."
        by_layer = {layer: self.largest_change(layer) for layer in self.layers}
        layer = max(by_layer, key=lambda name: abs(by_layer[name].difference.value))
        texts = "1 text" if self.texts == 1 else f"{self.texts} texts"
        return (
            f"Entropy-ESS goes {whole}: {signed(whole.difference)} over {texts}. The largest change between "
            f"neighbouring checkpoints is that of {layer}, {by_layer[layer]}: {signed(by_layer[layer].difference)}."
        )

    def _own(self) -> Row:
        return {"log": self.log, "tokens": self.tokens}

    def _of_layer(self, layer: str) -> Row:
        return {"change": self.change(layer), "largest_change": self.largest_change(layer)}

    def _charts(self) -> Iterator[tuple[str, alt.LayerChart, str]]:
        x = place_axis("Checkpoint" if self.places is None else "Step", whole=self.places is None)
        places = self.places or tuple(range(len(self.names)))
        caption = (
            "When does the memory of each layer develop? Each faint line is a layer, the strong one the mean over all "
            f"channels. All checkpoints read the same {self.texts} texts ({sum(self.tokens):,} tokens), at the same "
            "positions, heads and channels."
        )
        levels = levels_chart(x, places, self.means(), {layer: self.means(layer) for layer in self.layers})
        yield "Entropy-ESS of each layer, and the mean over all channels", levels, caption
        values = self.values()
        known = values[:, np.isfinite(values).all(0)]
        changes = change_chart(x, places, [mean_interval(row) for row in known - known[0]])
        yield "Change since the first checkpoint, mean over all channels", changes, ""
        for title, chart in () if self.places is None else log_charts(x, self.log):
            yield title, chart, ""

    def _rows(self) -> list[Row]:
        return [self._row(layer) for layer in (AVERAGE, *self.layers)]

    def _row(self, layer: str) -> Row:
        largest = self.largest_change(layer)
        metrics = ("entropy", "relative_lower", "relative_upper", "norm")
        means, least, most, norms = (self.means(layer, metric) for metric in metrics)
        # Text where a number alone would hide that a count is known between bounds only.
        first, last = (
            float(low) if low == high else between(low, high, "{:.4g}".format)
            for low, high in ((least[0], most[0]), (least[-1], most[-1]))
        )
        return {
            "layer": layer,
            "first entropy-ESS": float(means[0]),
            "last entropy-ESS": float(means[-1]),
            "difference": signed(self.change(layer).difference),
            "largest change": f"{signed(largest.difference)}, {largest.before} → {largest.after}",
            "first count": first,
            "last count": last,
            "first norm": float(norms[0]),
            "last norm": float(norms[-1]),
        }


@dataclass(frozen=True)
class Exponent:
    """How ESS of a layer or head goes with the length n of the context: about as n to the power of this.

    Attributes:
        layer: The layer, or "average".
        unit: The head or channel; empty for the layer.
        whole: Exponent over all lengths up to the trained one: the slope of log ESS against log n, fitted in each
            text, with an interval of 95 % by Student's t over the texts.
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
    """

    places: tuple[int, ...]
    model: str
    future: int
    trained_length: int | None

    title = "Effective state-size against the length of the context"
    kinds = ("lengths", "length")
    about = (
        "ESS goes about as the length of the context to the power of the exponent. A layer or head grows where the "
        "interval of its exponent over the last two lengths lies above 0.1, and levels off where it lies below; where "
        "the interval leaves that open, it is not clear. A star marks layers that come within a fifth of the most that "
        "is possible: their course is that limit's."
    )

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
        return self._averaged(tops) if layer == AVERAGE else tops[:, self.layers.index(layer)]

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
        known = values[:, (np.isfinite(values) & (values > 0)).all(0)]
        slopes = (_slopes(self.trained[first:], known[first:]) for first in (0, max(count - 2, 0)))
        whole, last = map(mean_interval, slopes)
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
        return f"{goes}, about as n^{signed(self.exponent().whole, '.2f')}; {self._courses()}.{self._window()}"

    def _courses(self) -> str:
        """How many heads still grow, as far as that can be told."""
        if not self._enough:
            return f"at least {FEWEST_TEXTS} excerpts are needed to tell which heads still grow"
        # What heads of one cache carry together is no head.
        heads = [one.course for one in self.exponents() if one.unit and not one.layer.endswith(JOINT)]
        words = {"grows": "still grow", "levels off": "level off", "not clear": "are not clear"}
        counts = ", ".join(f"{heads.count(course)} {told}" for course, told in words.items())
        return f"of {len(heads)} heads or channels {counts}"

    def _window(self) -> str:
        """What a future that is shorter than the contexts means; empty where it is not."""
        longest = self.trained[-1]
        if self.future >= longest:
            return ""
        return (
            f" ESS after {longest} tokens cannot pass the {self.future} tokens behind the cut: the growth is what this "
            "window allows."
        )

    def _own(self) -> Row:
        exponents = [
            {"layer": one.layer, "unit": one.unit, "exponent": one.whole.value, "last": one.last.value}
            | {"exponent_interval": one.whole.ends, "last_interval": one.last.ends, "course": one.course}
            for one in self.exponents()
        ]
        own = {"model": self.model, "future": self.future, "excerpts": self.texts}
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
            "exponent": signed(one.whole),
            "over the last two lengths": signed(one.last) + course,
            **{f"ESS after {name}": float(row.mean()) for name, row in zip(self.names, values, strict=True)},
        }


def _slopes(lengths: tuple[int, ...], values: Numbers) -> Numbers:
    """Slope of log ESS, (lengths, texts), against log n, of each text; none with fewer than two lengths."""
    if len(lengths) < 2:
        return np.array([])
    logarithms = np.log(np.array(lengths, np.float64))
    centred = logarithms - logarithms.mean()
    return centred @ np.log(values) / (centred @ centred)
