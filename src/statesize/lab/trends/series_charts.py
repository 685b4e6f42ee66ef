"""The charts of a series: ESS of each layer against the steps, and the log of the training below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from statesize.lab.studies.statistics import of_mean
from statesize.lab.trends.log import Log
from statesize.lab.trends.points import JOINT
from statesize.lab.trends.trend import AVERAGE, Trend
from statesize.measurement.chart import METRICS, Axis, Chart, Hint, Layer, Row, table


def series_charts(trend: Trend, places: Sequence[int], log: Log, *, stepped: bool) -> list[Chart]:
    """ESS of all layers, its change since the first checkpoint with intervals, and what the log of steps tells."""
    x = Axis("Step" if stepped else "Checkpoint", "linear" if stepped else "index")
    layers = [layer for layer in trend.layers if not layer.endswith(JOINT)]
    layers += [layer for layer in trend.layers if layer.endswith(JOINT)]
    hints = (Hint("layer", "layer", "text"), Hint("place", x.title.lower(), ",d"), Hint("ess", "ESS", ".2f"))
    levels = Chart(
        x,
        Axis(METRICS["entropy"]),
        (
            Layer("line", "layers", "single heads", "place", "ess", by="layer", points=True, hints=hints),
            Layer("line", "mean", "mean", "place", "ess", points=True, hints=hints),
        ),
        title="Entropy-ESS of each layer, and the mean over all channels",
        tables={
            "layers": [row for layer in layers for row in _line(trend, places, layer)],
            "mean": list(_line(trend, places, AVERAGE)),
        },
        legend=False,
    )
    return [levels, _changes(trend, places, x), *(_logs(log, x) if stepped else ())]


def _line(trend: Trend, places: Sequence[int], layer: str) -> Iterator[Row]:
    for row in table(place=places, ess=trend.means(layer)):
        yield {"layer": layer, **row}


def _changes(trend: Trend, places: Sequence[int], x: Axis) -> Chart:
    """The mean over layers since the first checkpoint, paired over documents."""
    values = trend.values()
    known = np.isfinite(values).all(0)
    found = [of_mean(row).interval() for row in values[:, known] - values[0, known]]
    rows = table(
        place=places,
        ess=[interval.value for interval in found],
        low=[interval.low for interval in found],
        high=[interval.high for interval in found],
    )
    band = Layer("band", "changes", "single heads", "place", "low", end="high")
    line = Layer("line", "changes", "mean", "place", "ess", points=True)
    return Chart(
        x,
        Axis("Change of entropy-ESS"),
        (band, line) if np.count_nonzero(known) > 1 else (line,),
        title="Change since the first checkpoint, mean over all channels, with its interval over the documents",
        height=220,
        tables={"changes": rows},
        legend=False,
    )


def _logs(log: Log, x: Axis) -> Iterator[Chart]:
    for kind in ("loss", "accuracy", "perplexity"):
        rows = [
            {"name": name, **row}
            for name, points in log.items()
            if kind in name
            for row in table(place=[step for step, _ in points], value=[value for _, value in points])
        ]
        if rows:
            line = Layer("line", "log", "mean", "place", "value", by="name")
            names = ", ".join(dict.fromkeys(str(row["name"]) for row in rows))
            yield Chart(x, Axis(kind.capitalize()), (line,), f"From the log: {names}", 180, {"log": rows}, legend=False)
