"""ESS of each layer at each point, over the same texts: what `changes` and `growth` have in common, with their page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

import altair as alt
import numpy as np
import pandas as pd

from statesize.adapters.select import lost_mixers
from statesize.check import refuse, require_choice
from statesize.codes import Note
from statesize.io.json_values import json_values
from statesize.io.text import counted, listed
from statesize.lab.trends.points import JOINT, MEASURED, Numbers, Point
from statesize.measurement.statistics import FEWEST_TEXTS, between
from statesize.report import vega
from statesize.report.chart_tables import Metric, Row
from statesize.report.names import by_reason
from statesize.report.result_page import PageChart, PageTable, ResultPage
from statesize.results.profiled import comparable_layers
from statesize.results.summary import known_mean

AVERAGE = "average"
"""The mean over all layers that compare, each channel with the same weight."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Trend(ABC):
    """ESS of the layers of a model at several points, over the same texts.

    Attributes:
        names: The points that were measured, as tables call them.
        places: Steps of the training, None where they are not known; or tokens of the context.
        points: What was measured of each.
        skipped: Points and layers that are left out, and why.
        facts: Digest of the tokens, settings, and versions.
        notes: What else is to know, such as which layers were measured in some texts only, or that a log could not be
            read.
    """

    names: tuple[str, ...]
    places: tuple[int, ...] | None
    points: tuple[Point, ...]
    skipped: Mapping[str, Note]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    title: ClassVar[str]
    """Title of the page."""
    kinds: ClassVar[tuple[str, str]]
    """What the points and their places are, ("checkpoints", "step") or ("lengths", "length")."""

    @property
    @abstractmethod
    def about(self) -> str:
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
        """The table of all layers."""

    @property
    def telling_rows(self) -> int:
        """The number of its rows that are read first, which are the average and the layers."""
        return 1 + len(self.layers)

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
        require_choice("metric", metric, MEASURED)
        require_choice("layer", layer, (AVERAGE, *self.layers))
        if layer == AVERAGE:
            return self.averaged(np.array([[one.of_layer[metric] for one in point.mixers] for point in self.points]))
        mixers = [point.mixers[self.layers.index(layer)] for point in self.points]
        if unit is None:
            return np.array([mixer.of_layer[metric] for mixer in mixers], np.float64)
        if unit not in mixers[0].units:
            refuse("unit", f"one of {', '.join(mixers[0].units)}", unit)
        column = mixers[0].units.index(unit)
        return np.array([mixer.of_units[metric] for mixer in mixers], np.float64)[..., column]

    @property
    def _chosen(self) -> str:
        """The layers that were asked for, with "of" before them; empty where none were chosen."""
        alone = [name for name in self.layers if not name.endswith(JOINT)]
        return f" of {listed(alone)}" if self.facts["asked"].get("layers") is not None else ""

    @property
    def _of_layers(self) -> str:
        """The layers whose heads or channels are told, with "of" before them, where these are not all."""
        skipped = {name: why for point in self.points for name, why in point.skipped.items()}
        lost, alone = lost_mixers(skipped, self.layers), [name for name in self.layers if not name.endswith(JOINT)]
        return self._chosen or (f" of {len(alone)} of {counted(len(alone) + len(lost), 'layer')}" if lost else "")

    def _measured(self, layer: str = AVERAGE) -> str:
        """How many heads or channels were measured: all, or such as 2 of 4."""
        mixers = [one for one in self.points[0].mixers if layer == one.name]
        mixers = mixers or [one for one in self.points[0].mixers if not one.name.endswith(JOINT)]
        measured, total = sum(len(one.units) for one in mixers), sum(one.total for one in mixers)
        return "all" if measured == total else f"{measured:,} of {total:,}"

    def averaged(self, values: Numbers) -> Numbers:
        """The mean over layers of (points, layers, …) that compare, without what heads carry together."""
        # Where sizes grow with the length, the last one is the largest.
        layers = self.points[-1].layers
        kept = [self.layers.index(layers[row][0]) for row in comparable_layers(layers)]
        return np.average(values[:, kept], axis=1, weights=[self.points[0].mixers[column].channels for column in kept])

    def means(self, layer: str = AVERAGE, metric: Metric | str = "entropy") -> Numbers:
        """The same, averaged over the texts that are known at all points.

        Args:
            layer: As for `values`.
            metric: As for `values`.

        Returns:
            (points,).
        """
        return known_mean(known_throughout(self.values(layer, metric)), 1)

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

    def to_html(self, path: str | PathLike[str] = "trend.html") -> Path:
        """Write a page of one self-contained HTML file; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        return self.page().write(path)

    def page(self) -> ResultPage:
        """What it shows.

        Returns:
            The finding, its charts, and a row a layer.
        """
        names, rows = list(self._rows()[0]), [list(row.values()) for row in self._rows()]
        told = f" Intervals of 95 % are by Student’s t over {self.units} texts." if self.enough else ""
        counts = {known_throughout(self.values(layer)).shape[1] for layer in (AVERAGE, *self.layers)}
        if min(counts) < self.texts:
            known = between(min(counts), max(counts), "{:.0f}".format)
            told += f" Means are over those texts that were measured at all {self.kinds[0]}: {known} of {self.texts}."
        differences = [one.run_difference for one in self.points if np.isfinite(one.run_difference)]
        return ResultPage(
            title=self.title,
            finding=self.finding,
            charts=[PageChart(title, vega.page_chart(chart), caption) for title, chart, caption in self._charts()],
            tables=[
                PageTable("Layer by layer", names, rows[: self.telling_rows], f"{self.about}{told}"),
                *([PageTable("All layers and heads", names, rows)] if self.telling_rows < len(rows) else []),
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
    def units(self) -> int:
        """How many texts are independent of each other, over which intervals of the average are."""
        return known_throughout(self.values()).shape[1]

    @property
    def _no_average(self) -> str:
        """That no text tells the average over layers; empty where one does."""
        said = f"There is no average over layers: no text was measured in all of them at all {self.kinds[0]}."
        return "" if self.units else said

    @property
    def enough(self) -> bool:
        """Whether there are enough texts for intervals."""
        return self.units >= FEWEST_TEXTS

    def __repr__(self) -> str:
        means = zip(self.names, self.means(), strict=True)
        along = ", ".join(f"{mean:.1f} at {name}" for name, mean in means)
        lost = by_reason(lost_mixers(self.skipped, ()))
        lines = [f"Not measured: {names}: {_shortened(reason)}" for names, reason in lost.items()]
        if self.notes:
            lines.append(f"{counted(len(self.notes), 'note')}, in .notes: {_shortened(self.notes[0])}")
        average = [f"Average: {along}"] if self.units else []
        return "\n".join([self.finding, *average, *lines, "next: .to_dataframe(), .to_html()"])


def known_throughout(values: Numbers) -> Numbers:
    """Values (points, texts) of those texts that are known at all points."""
    return values[:, np.isfinite(values).all(0)]


def _shortened(reason: str) -> str:
    return shorten(reason, 240, placeholder=" …")


def _reasons(skipped: Mapping[str, Note]) -> list[dict[str, str]]:
    """What was not measured, as JSON documents name it."""
    return [{"name": name, "reason": str(reason)} for name, reason in skipped.items()]
