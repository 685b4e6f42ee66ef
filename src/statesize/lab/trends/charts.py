"""What the page of a trend draws: ESS of each layer, its change, and the log of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import altair as alt

from statesize.lab.trends.checkpoints import Log
from statesize.lab.trends.points import JOINT, Numbers
from statesize.measurement.statistics import Interval
from statesize.report import vega
from statesize.report.chart_tables import METRICS, Row, table


def place_axis(title: str, *, logarithmic: bool = False, whole: bool = False) -> alt.X:
    """The axis of steps, checkpoints or lengths; `whole` numbers only where there are few."""
    axis = alt.Axis(format="d", tickMinStep=1) if whole else alt.Axis()
    return alt.X("place:Q", title=title, axis=axis, scale=alt.Scale(type="log") if logarithmic else alt.Undefined)


def levels_chart(
    x: alt.X,
    places: Sequence[int],
    mean: Numbers,
    layers: dict[str, Numbers],
    *,
    fitted: int | None = None,
    ceiling: Numbers | None = None,
) -> alt.LayerChart:
    """ESS of each layer, and the mean over all channels; on logarithmic axes with a ceiling, those not fitted apart."""

    def rows(part: slice, curves: dict[str, Numbers]) -> list[Row]:
        return [
            {"layer": name, **row}
            for name, curve in curves.items()
            for row in table(place=places[part], ess=curve[part])
            if row["ess"] or ceiling is None
        ]

    inside, outside = slice(fitted), slice(len(places) if fitted is None else fitted, None)
    # What heads carry together comes last.
    drawn = {name: layers[name] for name in sorted(layers, key=lambda name: name.endswith(JOINT))}
    tables = {
        "ceiling": [] if ceiling is None else table(place=places, ess=ceiling),
        "layers": rows(inside, drawn),
        "beyond": rows(outside, {"average": mean, **drawn}),
        "mean": rows(inside, {"average": mean}),
    }
    y = alt.Y("ess:Q", title=METRICS["entropy"], scale=alt.Undefined if ceiling is None else alt.Scale(type="log"))
    at = str(cast("Any", x)["title"]).lower()
    hints = (vega.hint("layer", "layer"), vega.hint("place", at, ",d"), vega.hint("ess", "ESS", ".2f"))
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


def change_chart(x: alt.X, places: Sequence[int], changes: Sequence[Interval]) -> alt.LayerChart:
    """The change since the first point, with its intervals where there are any."""
    ends = [one for one in changes if one.ends]
    rows = table(place=places, ess=[one.value for one in changes])
    y = partial(alt.Y, title="Change of entropy-ESS", stack=None)
    band = table(place=places, low=[one.low for one in changes], high=[one.high for one in changes]) if ends else []
    layers: vega.Layers = [
        ("single heads", vega.band("intervals", x=x, y=y("low:Q"), y2="high")),
        ("mean", vega.line("changes", x, y("ess:Q"), points=True)),
    ]
    return vega.layered(layers, {"changes": rows, "intervals": band}, height=220, legend=False)


def log_charts(x: alt.X, log: Log) -> Iterator[tuple[str, alt.LayerChart]]:
    """Losses, accuracies and perplexities against the steps, by title."""
    for kind in ("loss", "accuracy", "perplexity"):
        rows = [
            {"name": name, **row}
            for name, points in log.items()
            if kind in name
            for row in table(place=[step for step, _ in points], value=[value for _, value in points])
        ]
        if rows:
            line = vega.line("log", x, alt.Y("value:Q", title=kind.capitalize()), by="name")
            names = ", ".join(dict.fromkeys(str(row["name"]) for row in rows))
            yield f"From the log: {names}", vega.layered([("mean", line)], {"log": rows}, height=180)
