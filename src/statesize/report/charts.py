"""The charts of profiles: what `.plot`, notebooks and reports show of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import altair as alt
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.check import require_index
from statesize.errors import InputError
from statesize.measurement.statistics import evenly_spread
from statesize.report import vega
from statesize.report.chart_tables import (
    PALETTE,
    Metric,
    Row,
    json_number,
    metric_title,
    position_tables,
    table,
    tolerance_tables,
)
from statesize.report.names import cuts_name, kind_title, model_title
from statesize.report.table import short_names
from statesize.results.fields import COLUMNS
from statesize.results.profiled import Profiled, comparable, layer_name
from statesize.results.summary import (
    channels_of,
    ess_bounds,
    ess_values,
    known_mean,
    unit_dim,
)

FEWEST = 3
"""Relative tolerances that a curve against the tolerance needs."""
_ALONG = 256
"""Positions of a model along a text, beside other models."""


class ProfileCharts:
    """Charts of one profile; a layer, sequence or metric that is not there is an InputError.

    Args:
        profile: The profile.
        paper: Whether they are as wide as a column of a paper.
    """

    def __init__(self, profile: Profiled, *, paper: bool = False) -> None:
        self._profile, self._paper = profile, paper

    def __repr__(self) -> str:
        return f"Charts of {self._profile.model}: layers, positions, tolerance"

    def __call__(self) -> alt.LayerChart:
        """The chart `layers`."""
        return self.layers()

    @property
    def paper(self) -> ProfileCharts:
        """These charts as wide as a column of a paper, such as `.plot.paper.layers().save("layers.pdf")`."""
        return ProfileCharts(self._profile, paper=True)

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
        title = metric_title(metric)
        name, mixer = _layer(self._profile, layer, sequence)
        if metric != "entropy" and not mixer[metric].shape[-1]:
            raise InputError(f"the profile has no {metric}; profile with one.")
        at, tokens = mixer["position"].values, self._profile.tokens
        lower, upper = ess_bounds(mixer, metric)
        texts = np.array([show_token(str(token)) for token in tokens["tokens"].values[sequence]])
        tables = position_tables(
            _names(mixer),
            at,
            (lower[sequence], upper[sequence]),
            mixer["ceiling"].values[sequence],
            token=texts[at],
            norm=mixer["norm"].values[sequence].mean(0),
        )
        special = np.flatnonzero(tokens["special"].values[sequence])
        tables["borders"] = table(position=special, token=texts[special])
        return vega.positions_chart(
            tables, f"{self._profile.model}, {name}: {title} at {cuts_name(self._profile)}", title, paper=self._paper
        )

    def layers(self) -> alt.LayerChart:
        """ESS of each layer at the middle of the texts.

        Returns:
            The chart.
        """
        return layers([self._profile], paper=self._paper)

    def tolerance(self, layer: int | str = 0) -> alt.LayerChart:
        """ESS against the profile's relative tolerances, averaged over sequences and positions.

        Args:
            layer: A mixer, by index or name.

        Returns:
            The chart; a profile with fewer than three relative tolerances is an InputError.
        """
        name, mixer = _layer(self._profile, layer)
        ratios, *bounds = _curve(mixer)
        inside = mixer["position"].values >= 1
        low, high = (known_mean(counts[:, :, inside], (0, 2)) for counts in bounds)
        tables = tolerance_tables(_names(mixer), ratios, (low, high))
        return vega.tolerance_chart(
            tables, f"{self._profile.model}, {name}, {cuts_name(self._profile)}", paper=self._paper
        )


def layers(profiles: Sequence[Profiled], *, paper: bool = False) -> alt.LayerChart:
    """ESS of each layer of each model at the middle of the texts, the number of tables and headlines."""
    texts, numbers = ("model", "layer", "kind"), ("ess", "without_sink", "ceiling", "share", "tss")
    known = {column.name: column for column in COLUMNS}
    hints = [vega.hint(name, name) for name in texts]
    hints += [vega.hint(name, "share" if name == "share" else known[name].line, ".3~g") for name in numbers]
    rows = [row for profile in profiles for row in bars(profile)]
    y = alt.Y("ess:Q", title="ESS (numbers per channel)")
    x = alt.X("short:N", title="Layer", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    return vega.bars({"layers": rows}, x, y, "model", hints, paper=paper)


def bars(profile: Profiled) -> list[Row]:
    """A row per mixer."""
    title, short = model_title(profile), short_names(profile.mixers)
    rows: list[Row] = []
    for row in profile.quantities:
        share = row["share_of_ceiling"] if math.isnan(row["share_of_state"]) else row["share_of_state"]
        numbers = {name: json_number(row[name]) for name in ("ess", "without_sink", "ceiling", "tss")}
        texts = {"model": title, "layer": row["layer"], "kind": kind_title(row["kind"]), "short": short[row["layer"]]}
        rows.append({**texts, **numbers, "share": json_number(share)})
    return rows


def tolerance_counts(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """The relative tolerances above 0, ascending, each once, and bounds of counts (sequence, unit, position, ratio)."""
    ratios, first = np.unique(mixer["relative_threshold"].values, return_index=True)
    positive = ratios > 0
    lower, upper = (mixer[name].values[..., first[positive]] for name in ("relative_lower", "relative_upper"))
    return ratios[positive], lower, upper


def _curve(mixer: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    ratios, lower, upper = tolerance_counts(mixer)
    if len(ratios) < FEWEST:
        raise InputError(
            f"the profile has {len(ratios)} relative tolerances and a curve needs {FEWEST}; profile with some, "
            "such as relative_tolerances=[1e-1, 1e-2, 1e-3, 1e-4]."
        )
    return ratios, lower, upper


def _layer(profile: Profiled, layer: int | str, sequence: int = 0) -> tuple[str, xr.Dataset]:
    """A mixer by index or name, in which the sequence must be."""
    name = layer_name(profile.mixers, layer)
    mixer = profile.mixer(name)
    require_index("sequence", sequence, mixer.sizes["sequence"])
    return name, mixer


def _names(mixer: xr.Dataset) -> list[str]:
    unit = unit_dim(mixer)
    return [f"{unit} {index}" for index in mixer[unit].values]


def show_token(token: str) -> str:
    """A token with a sign for each space, tab and line end."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def along(profiles: Sequence[Profiled]) -> alt.LayerChart:
    """ESS of each model along the first text, the mean over its layers, below what these could carry."""
    rows, apart = list[Row](), False
    for profile in profiles:
        nodes = [profile.mixer(profile.mixers[at]) for at in comparable(profile)]
        if not nodes:
            continue
        weights = [channels_of(node) for node in nodes]
        ess = np.average([ess_values(node, "entropy")[0].mean(0) for node in nodes], axis=0, weights=weights)
        ceiling = np.average([node["ceiling"].values[0] for node in nodes], axis=0, weights=weights)
        at, positions = np.flatnonzero(np.isfinite(ess)), nodes[0]["position"].values
        apart |= bool((np.diff(positions[at]) > 1).any())
        at = at[evenly_spread(len(at), _ALONG)]
        found = table(position=positions[at], ess=ess[at], ceiling=ceiling[at])
        rows += [{"of": model_title(profile), **row} for row in found]
    names = list(dict.fromkeys(row["of"] for row in rows))
    scale = alt.Scale(domain=names, range=[PALETTE[index % len(PALETTE)] for index in range(len(names))])
    axis = alt.Axis(tickCount=8, labelFlush=True)
    x = alt.X("position:Q", title="Position in the text (tokens)", scale=alt.Scale(nice=False, zero=False), axis=axis)
    base = alt.Chart().encode(x=x, color=alt.Color("of:N", title=None, scale=scale))
    hints = [vega.hint("of", "of"), *(vega.hint(name, name, ".4~g") for name in ("position", "ess", "ceiling"))]
    points = alt.OverlayMarkDef(size=16) if apart else False
    curves = base.mark_line(point=points).encode(y=alt.Y("ess:Q", title="Numbers per channel"), tooltip=hints)
    ceilings = base.mark_line(strokeDash=[2, 3], strokeWidth=1).encode(y=alt.Y("ceiling:Q"))
    return alt.LayerChart(layer=[ceilings, curves], data=alt.Data(values=rows))


@cache
def page_charts() -> dict[str, Any]:
    """The specifications of the charts of a head, without their data; made once: altair checks them for a second."""
    charts = {
        "positions": vega.positions_chart(None),
        "tolerance": vega.tolerance_chart(None),
        "strip": vega.strip_chart(),
    }
    return {name: vega.page_chart(chart) for name, chart in charts.items()}
