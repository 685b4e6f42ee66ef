"""The chart of ESS against the length of the context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from statesize.lab.trends.points import Numbers
from statesize.lab.trends.trend import AVERAGE, Trend
from statesize.measurement.chart import METRICS, Axis, Chart, Hint, Layer, Row, table

_HINTS = (Hint("layer", "layer", "text"), Hint("length", "context", ",d"), Hint("ess", "ESS", ".2f"))


def growth_chart(trend: Trend, lengths: Sequence[int], trained: int, ceiling: Numbers) -> Chart:
    """ESS against the context on logarithmic axes; those beyond the first `trained` lengths apart."""
    inside, outside = slice(0, trained), slice(trained, None)

    def line(layer: str, part: slice) -> Iterator[Row]:
        for row in table(length=lengths[part], ess=trend.means(layer)[part]):
            if row["ess"]:
                yield {"layer": layer, **row}

    tables = {
        "ceiling": table(length=lengths, ess=ceiling),
        "layers": [row for layer in trend.layers for row in line(layer, inside)],
        "beyond": [row for layer in (AVERAGE, *trend.layers) for row in line(layer, outside)],
        "mean": list(line(AVERAGE, inside)),
    }
    return Chart(
        Axis("Context (tokens)", "log"),
        Axis(METRICS["entropy"], "log"),
        (
            Layer("line", "ceiling", "ceiling", "length", "ess"),
            Layer("line", "layers", "single heads", "length", "ess", by="layer", points=True, hints=_HINTS),
            Layer("line", "beyond", "special token", "length", "ess", by="layer", points=True, hints=_HINTS),
            Layer("line", "mean", "mean", "length", "ess", points=True, hints=_HINTS),
        ),
        title="Entropy-ESS at the cut, of each layer and of the mean over all channels",
        tables=tables,
        legend=False,
    )
