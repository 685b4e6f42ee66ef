"""The result of a series: ESS of each layer at each checkpoint, and where it changes most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from statesize.io.json_values import json_values
from statesize.io.text import facts_table
from statesize.lab.studies.statistics import of_mean
from statesize.lab.trends.checkpoints import Log
from statesize.lab.trends.trend import AVERAGE, JOINT, Trend, metric_names
from statesize.measurement import vega
from statesize.measurement.chart import METRICS, Metric, Row, table
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, between, over_texts, signed
from statesize.report.result_page import PageChart, PageTable, ResultPage


@dataclass(frozen=True)
class Change:
    """By how much a layer's ESS differs between two checkpoints, over the same documents.

    Attributes:
        layer: The layer, or "average".
        before: Index of the first of the two.
        after: Index of the second.
        from_value: Mean over documents at the first.
        to_value: At the second.
        difference: Mean of the differences, with an interval of 95 % by Student's t over the documents; where it is the
            largest of several differences, corrected for all of them (Bonferroni).
    """

    layer: str
    before: int
    after: int
    from_value: float
    to_value: float
    difference: Interval


@dataclass(frozen=True, eq=False, kw_only=True)
class Series(Trend):
    """ESS of the layers of a model at checkpoints of its training.

    Attributes:
        names: The checkpoints that were measured.
        steps: Their steps; None where their names do not hold them, or not one each.
        points: What was measured of each.
        skipped: Checkpoints and layers that were not measured, and why.
        log: Losses and accuracies by step, where there is a log.
        lengths: Tokens of each document.
        facts: Digest of the tokens, settings, and versions.
        notes: What else is to know, such as that the log could not be read.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...] | None
    log: Log
    lengths: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """The steps, or the indices of the checkpoints where no steps are known."""
        return tuple(range(len(self.names))) if self.steps is None else self.steps

    def change(self, layer: str = AVERAGE, metric: Metric | str = "entropy") -> Change:
        """From the first checkpoint to the last.

        Args:
            layer: As for `values`.
            metric: As for `values`.

        Returns:
            The change.
        """
        return self._change(layer, metric, 0, len(self.names) - 1)

    def largest_change(self, layer: str = AVERAGE, metric: Metric | str = "entropy") -> Change:
        """The largest change from one checkpoint to the next.

        Args:
            layer: As for `values`.
            metric: As for `values`.

        Returns:
            The change, with an interval for all of them together.
        """
        means = self.means(layer, metric)
        after = int(np.nan_to_num(np.abs(np.diff(means))).argmax()) + 1 if len(means) > 1 else 0
        return self._change(layer, metric, max(after - 1, 0), after, max(len(means) - 1, 1))

    def _change(self, layer: str, metric: str, before: int, after: int, looks: int = 1) -> Change:
        values = self.values(layer, metric)
        known = np.isfinite(values[[before, after]]).all(0)
        first, second = values[before, known], values[after, known]
        interval = over_texts(of_mean(second - first).interval(looks), len(first))
        return Change(layer, before, after, float(first.mean()), float(second.mean()), interval)

    @property
    def finding(self) -> str:
        """The layer and the checkpoint with the largest change of entropy-ESS, in one sentence."""
        largest = max(
            (self.largest_change(layer) for layer in self.layers), key=lambda change: abs(change.difference.value)
        )
        return (
            f"Entropy-ESS of {largest.layer} changes most, from {largest.from_value:.1f} at "
            f"{self.names[largest.before]} to {largest.to_value:.1f} at {self.names[largest.after]}: "
            f"{signed(largest.difference)} over {len(self.lengths)} documents."
        )

    def to_dataframe(self) -> pd.DataFrame:
        """All numbers as a table.

        Returns:
            One row for each checkpoint, layer and document; a column each for entropy, relative_count and norm.
        """
        rows = [
            {"checkpoint": name, "place": position, "layer": mixer.name, "kind": mixer.kind, "document": document}
            | {metric: values[document] for metric, values in mixer.of_layer.items()}
            for name, position, point in zip(self.names, self.places, self.points, strict=True)
            for mixer in point.mixers
            for document in range(len(self.lengths))
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it.

        Returns:
            Numbers, text and lists by name; what is not known is None.
        """
        document = {
            "checkpoints": [
                {"name": name, "step": None if self.steps is None else position, **row}
                for name, position, row in zip(self.names, self.places, self.mixer_rows(), strict=True)
            ],
            "layers": [self._layer(layer) for layer in (AVERAGE, *self.layers)],
            "log": self.log,
            "tokens": self.lengths,
        }
        return json_values(document | self._shared())

    def page(self) -> ResultPage:
        """What it shows.

        Returns:
            The finding, its charts, and a row a layer.
        """
        rows = [self._row(layer) for layer in (AVERAGE, *self.layers)]
        table = PageTable(
            "Layer by layer",
            list(rows[0]),
            [list(row.values()) for row in rows],
            "Differences are means over documents, with intervals of 95 % by Student’s t over the documents. "
            "That of the largest change is corrected for the number of changes that it was chosen from.",
        )
        caption = (
            "When does the memory of each layer develop? Each faint line is a layer, the strong one the mean over all "
            f"channels. All checkpoints read the same {len(self.lengths)} documents ({sum(self.lengths):,} tokens), at "
            "the same positions, heads and channels."
        )
        charts = series_charts(self, self.places, self.log, stepped=self.steps is not None)
        return ResultPage(
            title="Effective state-size through a training",
            finding=self.finding,
            charts=[
                PageChart(title, vega.page_chart(chart), "" if index else caption)
                for index, (title, chart) in enumerate(charts)
            ],
            tables=[table],
            notes=self.left_out,
            facts={"Checkpoints": ", ".join(self.names), **self.provenance},
        )

    def _row(self, layer: str) -> Row:
        whole, largest = self.change(layer), self.largest_change(layer)
        where = f"{self.names[largest.before]} → {self.names[largest.after]}"
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
            "difference": signed(whole.difference),
            "largest change": f"{signed(largest.difference)}, {where}",
            "first count": first,
            "last count": last,
            "first norm": float(norms[0]),
            "last norm": float(norms[-1]),
        }

    def _layer(self, layer: str) -> dict[str, Any]:
        mixers = {mixer.name: mixer for mixer in self.points[0].mixers}
        means = {metric: self.means(layer, metric) for metric in metric_names()}
        return {
            "name": layer,
            "kind": mixers[layer].kind if layer in mixers else AVERAGE,
            **means,
            "change": self._told(self.change(layer)),
            "largest_change": self._told(self.largest_change(layer)),
        }

    def _told(self, change: Change) -> dict[str, Any]:
        return {
            "from": self.names[change.before],
            "to": self.names[change.after],
            "difference": change.difference.value,
            "interval": change.difference.ends,
        }

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"checkpoints": len(self.names), "documents": len(self.lengths)}
        for layer in self.layers:
            facts[layer] = f"{self.means(layer)[0]:.1f} → {self.means(layer)[-1]:.1f}"
        return facts_table(self.finding, facts)


def series_charts(
    trend: Trend, positions: Sequence[int], log: Log, *, stepped: bool
) -> Iterator[tuple[str, alt.LayerChart]]:
    """ESS of all layers, its change since the first checkpoint with intervals, and the log of steps, by title."""
    axis = alt.Axis() if stepped else alt.Axis(format="d", tickMinStep=1)
    x = alt.X("position:Q", title="Step" if stepped else "Checkpoint", axis=axis)
    yield "Entropy-ESS of each layer, and the mean over all channels", _levels(trend, positions, x)
    yield _changes(trend, positions, x)
    for kind in ("loss", "accuracy", "perplexity") if stepped else ():
        rows = [
            {"name": name, **row}
            for name, points in log.items()
            if kind in name
            for row in table(position=[step for step, _ in points], value=[value for _, value in points])
        ]
        if rows:
            line = vega.line("log", x, alt.Y("value:Q", title=kind.capitalize()), by="name")
            names = ", ".join(dict.fromkeys(str(row["name"]) for row in rows))
            yield f"From the log: {names}", vega.layered([("mean", line)], {"log": rows}, height=180)


def _levels(trend: Trend, positions: Sequence[int], x: alt.X) -> alt.LayerChart:
    def rows(layer: str) -> Iterator[Row]:
        for row in table(position=positions, ess=trend.means(layer)):
            yield {"layer": layer, **row}

    layers = sorted(trend.layers, key=lambda layer: layer.endswith(JOINT))
    tables = {"layers": [row for layer in layers for row in rows(layer)], "mean": list(rows(AVERAGE))}
    y = alt.Y("ess:Q", title=METRICS["entropy"])
    hints = (
        vega.hint("layer", "layer"),
        vega.hint("position", str(cast("Any", x)["title"]).lower(), ",d"),
        vega.hint("ess", "ESS", ".2f"),
    )
    return vega.layered(
        [
            ("single heads", vega.line("layers", x, y, by="layer", faint=True, points=True, hints=hints)),
            ("mean", vega.line("mean", x, y, points=True, hints=hints)),
        ],
        tables,
        legend=False,
    )


def _changes(trend: Trend, positions: Sequence[int], x: alt.X) -> tuple[str, alt.LayerChart]:
    """The mean over layers since the first checkpoint, paired over documents."""
    values = trend.values()
    known = np.isfinite(values).all(0)
    intervals = [of_mean(row).interval() for row in values[:, known] - values[0, known]]
    ends: dict[str, list[float]] = {}
    if np.count_nonzero(known) >= FEWEST_TEXTS:
        ends = {"low": [interval.low for interval in intervals], "high": [interval.high for interval in intervals]}
    rows = table(position=positions, ess=[interval.value for interval in intervals], **ends)
    y = partial(alt.Y, title="Change of entropy-ESS", stack=None)
    layers: vega.Layers = [("mean", vega.line("changes", x, y("ess:Q"), points=True))]
    if ends:
        layers = [("single heads", vega.band("changes", x=x, y=y("low:Q"), y2="high")), *layers]
    title = "Change since the first checkpoint, mean over all channels"
    title += ", with its interval over the documents" if ends else ""
    return title, vega.layered(layers, {"changes": rows}, height=220, legend=False)
