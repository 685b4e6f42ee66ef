"""The charts of profiles: what `.plot`, notebooks and reports show of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from statesize.check import require_index
from statesize.errors import InputError
from statesize.measurement.statistics import evenly_spread, finite
from statesize.report import vega
from statesize.report.table import short_names
from statesize.report.vega import Metric, Row, metric_title, position_tables, table
from statesize.report.words import cuts_name, kind_title, model_title
from statesize.results.fields import LAYERS, columns
from statesize.results.profiled import Profiled, comparable, layer_name
from statesize.results.summary import channels_of, ess_bounds, ess_values, unit_dim

_ALONG = 256
"""Positions of a model along a text, beside other models."""


@dataclass(frozen=True, repr=False)
class Charts:
    """Charts of several profiles."""

    _profiles: Sequence[Profiled]

    def __repr__(self) -> str:
        return f"Charts of {', '.join(profile.model for profile in self._profiles)}: layers, positions"

    def layers(self) -> alt.LayerChart:
        """ESS of each layer of each model at the middle of the texts, the number of tables and headlines."""
        headings = {column.name: column.line for column in columns(LAYERS)} | {"share": "share"}
        numbers = [name for name in ("ess", "without_sink", "ceiling", "share", "tss") if name in headings]
        rows: list[Row] = []
        for profile in self._profiles:
            for row, short in zip(profile.quantities, short_names(profile.mixers).values(), strict=True):
                share = row["share_of_ceiling"] if math.isnan(row["share_of_state"]) else row["share_of_state"]
                texts = {"model": model_title(profile), "layer": row["layer"], "kind": kind_title(row["kind"])}
                values = {name: finite((row | {"share": share})[name]) for name in numbers}
                rows.append({**texts, "short": short, **values})
        names = list(dict.fromkeys(row["model"] for row in rows))
        marks = alt.Chart(alt.NamedData("layers")).mark_bar()
        marks = marks.encode(
            x=alt.X("short:N", title="Layer", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("ess:Q", title="ESS (numbers per channel)"),
            xOffset=alt.XOffset("model:N", sort=names),
            color=vega.by_name("model", rows, alt.Legend(title=None, orient="top")),
            tooltip=[vega.hint(name, name) for name in ("model", "layer", "kind")]
            + [vega.hint(name, headings[name], ".3~g") for name in numbers],
        )
        return vega.drawn([marks], {"layers": rows}, 240)

    __call__ = layers

    def positions(self) -> alt.LayerChart:
        """ESS of each model along the first text, the mean over its layers, below what these could carry."""
        rows = list[Row]()
        for profile in self._profiles:
            nodes = [profile.mixer(profile.mixers[at]) for at in comparable(profile)]
            if not nodes:
                continue
            weights = [channels_of(node) for node in nodes]
            ess = np.average([ess_values(node, "entropy")[0].mean(0) for node in nodes], axis=0, weights=weights)
            ceiling = np.average([node["ceiling"].values[0] for node in nodes], axis=0, weights=weights)
            at, positions = np.flatnonzero(np.isfinite(ess)), nodes[0]["position"].values
            at = at[evenly_spread(len(at), _ALONG)]
            curve = table(position=positions[at], ess=ess[at], ceiling=ceiling[at])
            rows += [{"of": model_title(profile), **row} for row in curve]
        axis, scale = alt.Axis(tickCount=8, labelFlush=True), alt.Scale(nice=False, zero=False)
        x = alt.X("position:Q", title="Position in the text (tokens)", scale=scale, axis=axis)
        base = alt.Chart().encode(x=x, color=vega.by_name("of", rows, alt.Legend()))
        hints = [vega.hint("of", "of"), *(vega.hint(name, name, ".4~g") for name in ("position", "ess", "ceiling"))]
        # Few points are cuts between which nothing was measured.
        points = alt.OverlayMarkDef(size=16) if len(rows) < _ALONG else False
        curves = base.mark_line(point=points).encode(y=alt.Y("ess:Q", title="Numbers per channel"), tooltip=hints)
        ceilings = base.mark_line(strokeDash=[2, 3], strokeWidth=1).encode(y=alt.Y("ceiling:Q"))
        return alt.LayerChart(layer=[ceilings, curves], data=alt.Data(values=rows))


class ProfileCharts(Charts):
    """Charts of one profile; a layer, sequence or metric that is not there is an InputError."""

    def positions(self, layer: int | str = 0, sequence: int = 0, metric: Metric = "entropy") -> alt.LayerChart:
        """ESS over the positions of one sequence against its ceiling: the mean over heads, and each head faint.

        Args:
            layer: A mixer, by index or name.
            sequence: Index of the sequence.
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            The chart.

        Raises:
            InputError: If the metric was not measured.
        """
        (profile,), title = self._profiles, metric_title(metric)
        name = layer_name(profile.mixers, layer)
        mixer, tokens = profile.mixer(name), profile.tokens
        require_index("sequence", sequence, mixer.sizes["sequence"])
        if metric != "entropy" and not mixer[metric].shape[-1]:
            raise InputError(f"the profile has no {metric}; profile with one.")
        positions, (lower, upper) = mixer["position"].values, ess_bounds(mixer, metric)
        texts = np.array([show_token(str(token)) for token in tokens["tokens"].values[sequence]])
        tables = position_tables(
            [f"{unit_dim(mixer)} {index}" for index in mixer[unit_dim(mixer)].values],
            positions,
            (lower[sequence], upper[sequence]),
            mixer["ceiling"].values[sequence],
            token=texts[positions],
            norm=mixer["norm"].values[sequence].mean(0),
        )
        special = np.flatnonzero(tokens["special"].values[sequence])
        tables["borders"] = table(position=special, token=texts[special])
        return vega.positions_chart(tables, f"{profile.model}, {name}: {title} at {cuts_name(profile)}", title)


def show_token(token: str) -> str:
    """A token with a sign for each space, tab and line end."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
