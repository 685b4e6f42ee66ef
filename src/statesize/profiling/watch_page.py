"""A page of what a stream of text made each layer carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt

from statesize.profiling.watching import LayerReading, Reading
from statesize.report.chart_page import ChartPage, write_chart_page
from statesize.texts.tokens import AnyTokenizer, token_text

HEADINGS = ("layer", "mean ESS", "mean ceiling", "mean count above 1 %", "mean norm")


def write_page(
    name: str,
    readings: Sequence[Reading],
    tokenizer: AnyTokenizer,
    future: int,
    path: Path,
    skipped: Mapping[str, str] | None = None,
) -> None:
    """Write one HTML file of at least one reading, and of why some layers have none."""
    layers: dict[str, list[LayerReading]] = {}
    for layer in (layer for reading in readings for layer in reading.layers):
        layers.setdefault(layer.name, []).append(layer)
    rows = [[layer, *(_mean(some, what) for what in _AVERAGED)] for layer, some in layers.items()]
    page = ChartPage(
        title=f"What {name} carried while it read",
        lead=f"{name} was measured at {len(readings):,} cuts of the text, each with the {future} tokens after it.",
        heading="ESS of each layer along the text",
        label="Entropy-ESS of each layer against the position in the text",
        caption="Entropy-ESS of each layer before each token. Choose a layer in the legend to see it alone.",
        tables=[(HEADINGS, rows)],
        notes=[
            f"What was read is the past, the next {future} tokens are the future, so no number can exceed {future}: "
            "with a larger --future there may be more.",
            "Numbers are means over the measured heads or channels of a layer.",
            *(f"{layer} was not measured: {reason}" for layer, reason in (skipped or {}).items()),
        ],
    )
    write_chart_page(page, chart(readings, tokenizer), path)


def chart(readings: Sequence[Reading], tokenizer: AnyTokenizer) -> alt.VConcatChart:
    """A line a layer."""
    rows = [
        {"position": reading.position, "token": token_text(tokenizer, reading.token)}
        | {"layer": layer.name, "ess": layer.entropy, "ceiling": layer.ceiling}
        for reading in readings
        for layer in reading.layers
    ]
    layers = list(dict.fromkeys(layer.name for reading in readings for layer in reading.layers))
    chosen = alt.selection_point(fields=["layer"], bind="legend")
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(
            x=alt.X("position:Q", title="Tokens before the cut"),
            y=alt.Y("ess:Q", title="Entropy-ESS"),
            color=alt.Color("layer:N", title=None, sort=layers, scale=alt.Scale(domain=layers, scheme="viridis")),
            opacity=alt.condition(chosen, alt.value(1), alt.value(0.1)),
            tooltip=["position:Q", "token:N", "layer:N", alt.Tooltip("ess:Q", format=".1f"), "ceiling:Q"],
        )
        .add_params(chosen)
        .properties(width=720, height=340)
    )
    return alt.vconcat(lines)


_AVERAGED = ("entropy", "ceiling", "count", "norm")


def _mean(layers: Sequence[object], what: str) -> str:
    return f"{sum(getattr(layer, what) for layer in layers) / len(layers):.3g}"
