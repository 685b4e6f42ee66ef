"""ESS of each layer at the points of a trend, over the same texts, each point a profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from statesize.check import refuse, require_choice, require_path
from statesize.codes import Code, Note
from statesize.errors import StatesizeError
from statesize.io.files import os_errors
from statesize.io.json_values import json_values
from statesize.io.text import counted
from statesize.lab.trends.growth import Exponent, Numbers
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, estimate
from statesize.profiling.profile import Profile
from statesize.report import vega
from statesize.report.result import Result
from statesize.report.result_page import PageChart, ResultPage
from statesize.report.table import PageTable
from statesize.results.profiled import comparable
from statesize.results.summary import channels_of, ess_values, known_mean, sample_of

AVERAGE, METRICS = "average", ["entropy", "relative_count", "norm", "ceiling"]
_ANALYSES = {"step": "change", "length": "exponent"}


@dataclass(frozen=True, eq=False, repr=False)
class Trend(Result):
    """ESS of the layers of a model at several points, over the same texts.

    Attributes:
        place: What places the points, the "step" of a training or the "length" of a context.
        rows: One for each point, layer and piece of text: point, place, layer, kind, piece, text, and the means over
            cuts and heads of entropy, relative_count, norm and ceiling. The layer "average" is the mean over all
            channels of the layers that compare.
        left_out: Points, layers and intervals that are left out, with the cause.
        analysis: Of each layer, the change from the first to the last step, or the exponent of the length.
        facts: What else its document holds.
    """

    place: str
    rows: Any  # a pd.DataFrame, of whose cells its stubs make unions of all types
    left_out: dict[str, Note]
    analysis: Mapping[str, Interval | Exponent] = field(default_factory=dict[str, Interval | Exponent])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def headline(self) -> str:
        """The course of the average, in one sentence."""
        return self.facts["headline"]

    @property
    def layers(self) -> list[str]:
        """The layers that were measured at all points, after "average"."""
        return self.rows["layer"].unique().tolist()

    @property
    def means(self) -> Any:
        """The means over texts of each metric, and the place, by layer and point."""
        return self.rows.groupby(["layer", "point"], sort=False)[["place", *METRICS]].mean()

    def values(self, layer: str = AVERAGE, metric: str = "entropy") -> Numbers:
        """A metric of a layer at each point over each piece of text that was measured at all points.

        Args:
            layer: The name of a layer, or "average".
            metric: "entropy", "relative_count", "norm" or "ceiling".

        Returns:
            (points, pieces).
        """
        chosen = self.rows["layer"] == require_choice("layer", layer, self.layers)
        values = self.rows.loc[chosen, require_choice("metric", metric, METRICS)]
        return values.to_numpy(np.float64).reshape(self.rows["point"].nunique(), -1)

    def texts(self, layer: str) -> list[int]:
        """The text of each piece of `values`: pieces of one text are one unit."""
        return self.rows[self.rows["layer"] == layer].groupby("piece")["text"].first().tolist()

    @property
    def legend(self) -> list[str]:
        """A line for each point, layer or interval that is left out."""
        return [f"{name}: {note} ({note.code})" for name, note in self.left_out.items()]

    def table(self) -> PageTable:
        """A row for each layer: its ESS at the first and the last point, and what is said of it."""
        points, kinds = self.rows["point"].unique(), self.rows.groupby("layer")["kind"].first()
        headings = ["layer", "kind", f"ESS at {points[0]}", f"ESS at {points[-1]}", "ceiling", _ANALYSES[self.place]]
        ends = self.means.groupby("layer").agg(["first", "last"])
        cells = [
            [name, kinds[name], *ends.loc[name, "entropy"], ends.loc[name, ("ceiling", "last")], str(said)]
            for name, said in self.analysis.items()
        ]
        return PageTable("Layer by layer", headings, cells)

    def chart(self) -> alt.LayerChart:
        """The ESS of each layer at each point, the average strong; by length, below its ceiling."""
        means, scale = self.means.reset_index(), alt.Scale(type="log") if self.place == "length" else alt.Undefined
        means = means[means["entropy"] > 0]
        layers, average = (means[(means["layer"] == AVERAGE) == strong].to_dict("records") for strong in (False, True))
        x = alt.X("place:Q", title=self.place.capitalize(), scale=scale)
        y, ceiling = (alt.Y(f"{name}:Q", title="Entropy-ESS", scale=scale) for name in ("entropy", "ceiling"))
        return vega.layered(
            [
                ("ceiling", vega.line("ceiling", x, ceiling)),
                ("single heads", vega.line("layers", x, y, by="layer", faint=True, points=True)),
                ("mean", vega.line("mean", x, y, points=True)),
            ],
            {"ceiling": average if self.place == "length" else [], "layers": layers, "mean": average},
            legend=False,
        )

    def page(self) -> ResultPage:
        """The headline, the chart, the table, and what is left out."""
        lines = "Each faint line is a layer, the strong one their average, a grey one its ceiling."
        drawn = PageChart("ESS of each layer", vega.page_chart(self.chart()), lines)
        title, notes = f"Effective state-size by {self.place}", {"Left out": self.legend}
        return ResultPage(title, self.headline, [drawn], [self.table()], notes)

    def to_dict(self) -> dict[str, Any]:
        """JSON of the command: the points, and the means and the analysis of each layer."""
        points = self.rows.drop_duplicates("point")[["point", "place"]].to_numpy().tolist()
        found = {
            f"{self.place}s": [{"name": name, self.place: place} for name, place in points],
            "layers": [{"name": layer, **self.means.loc[layer][METRICS].to_dict("list")} for layer in self.analysis],
            f"{_ANALYSES[self.place]}s": [{"layer": layer, **law.to_dict()} for layer, law in self.analysis.items()],
            "left_out": [
                {"name": name, "sentence": str(note), **note.to_json()} for name, note in self.left_out.items()
            ],
        }
        return json_values({**self.facts, **found})


def measured_rows(
    points: Mapping[Any, tuple[str, int]],
    measure: Callable[[Any, Path | None], Profile],
    texts: Sequence[int],
    output: object,
) -> tuple[Any, dict[str, Note]]:
    """The rows of points with their name and place, which read pieces of `texts`, and what is left out."""
    folder = None if output is None else require_path("output", output)
    if folder is not None:
        with os_errors(f"cannot write to {folder}", "Give a folder that can be written."):
            folder.mkdir(parents=True, exist_ok=True)
    rows, causes, failed = list[dict[str, Any]](), dict[str, Note](), dict[str, StatesizeError]()
    for point, (name, at) in points.items():
        try:
            profile = measure(point, None if folder is None else folder / name.replace("/", "_"))
        except StatesizeError as error:
            failed[name] = error
            continue
        rows += [{"point": name, "place": at, "text": texts[row["piece"]], **row} for row in _rows(profile)]
        causes = {**profile.not_measured, **profile.incomplete, **causes}
    if not rows:
        raise next(iter(failed.values()))
    every: Any = pd.DataFrame(rows)
    # A layer compares in the pieces in which it was measured at all points.
    common = every[every.groupby(["layer", "piece"])["point"].transform("nunique") == every["point"].nunique()]
    apart = Note(Code.NOT_COMPARABLE, "It was not measured in the same texts at all points.")
    lost = dict.fromkeys((layer for layer in every["layer"].unique() if layer not in set(common["layer"])), apart)
    if len(set(texts)) < FEWEST_TEXTS:
        lost["intervals"] = Note(
            Code.FEW_TEXTS, f"no interval over {counted(len(set(texts)), 'text')}; {FEWEST_TEXTS} give it."
        )
    left_out = {name: Note.of(error) for name, error in failed.items()} | lost | causes
    table: Any = pd.concat([_average(common), common], ignore_index=True)
    return table[["point", "place", "layer", "kind", "piece", "text", *METRICS]], left_out


def _rows(profile: Profile) -> Iterator[dict[str, Any]]:
    """The means of each layer over each piece in which it was measured."""
    compared = {profile.mixers[index] for index in comparable(profile)}
    for name in profile.mixers:
        node = profile.mixer(name)
        norm, limits, later = node["norm"].values, node["ceiling"].values[:, None], node["position"].values >= 1
        arrays = (*(ess_values(node, metric) for metric in METRICS[:2]), norm, np.broadcast_to(limits, norm.shape))
        units, sample = [known_mean(values[:, :, later], 2) for values in arrays], sample_of(node)
        weight = channels_of(node) if name in compared else 0
        for piece in range(len(norm)):
            means = [estimate(values[piece], sample).mean for values in units]
            if np.isfinite(means[0]):
                label = {"layer": name, "kind": str(node.attrs["kind"]), "piece": piece, "weight": weight}
                yield label | dict(zip(METRICS, means, strict=True))


def _average(rows: Any) -> Any:
    """The average, in pieces in which all layers were measured that compare."""
    if not rows["weight"].any():
        refuse("points", "of models that share a layer that can be measured", "none")
    # Where sizes grow with the length, the last point tells which layer is a part of a larger one.
    weights = rows["layer"].map(rows.groupby("layer")["weight"].last())
    weighted = rows[METRICS].mul(weights, axis=0).assign(weight=weights, layers=weights > 0)
    sums = weighted.groupby([rows[name] for name in ("point", "place", "piece", "text")], sort=False).sum()
    whole = sums[sums["layers"] == sums["layers"].max()]
    return whole[METRICS].div(whole["weight"], axis=0).reset_index().assign(layer=AVERAGE, kind=AVERAGE)
