"""The charts of the study of recall, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.recall.claim import ModelRecall, recall_rows
from statesize.studies.recall.score import SLICES

_SIDE = 300


def recall_charts(models: Sequence[ModelRecall]) -> alt.VConcatChart:
    """Perplexities of each slice, and that of repeated bigrams against depth and ESS.

    Args:
        models: What was found.

    Returns:
        The charts with their data.
    """
    rows = [{name: json_number(value) for name, value in row.items()} for row in recall_rows(models)]
    color = alt.Color("model:N", title="Model", scale=alt.Scale(range=list(PALETTE)))
    return alt.vconcat(
        _slices(models, color), alt.hconcat(_against(rows, "depth", color), _against(rows, "ess", color))
    )


def _slices(models: Sequence[ModelRecall], color: alt.Color) -> alt.Chart:
    values = [
        {"model": model.model, "slice": name, "perplexity": json_number(model.score.perplexity(name))}
        for model in models
        for name in SLICES
    ]
    chart = alt.Chart(alt.Data(values=values), title="Perplexity of tokens by what the context has shown")
    axis = alt.Axis(format="~s", tickCount=6, labelOverlap=True)
    return (
        chart.mark_point(filled=True, size=50)
        .encode(
            x=alt.X("perplexity:Q", title="Perplexity", scale=alt.Scale(type="log"), axis=axis),
            y=alt.Y("slice:N", title=None, sort=list(SLICES)),
            yOffset="model:N",
            color=color,
            tooltip=["model:N", "slice:N", "perplexity:Q"],
        )
        .properties(width=2 * _SIDE, height=_SIDE)
    )


def _against(rows: list[dict[str, str | int | float | None]], column: str, color: alt.Color) -> alt.Chart:
    titles = {"depth": "Depth of the dip at delimiters", "ess": "Entropy-ESS away from delimiters"}
    chart = alt.Chart(alt.Data(values=rows), title="Repeated bigrams").mark_point(filled=True, size=70)
    return chart.encode(
        x=alt.X(f"{column}:Q", title=titles[column], scale=alt.Scale(zero=False)),
        y=alt.Y("recall_perplexity:Q", title="Perplexity", scale=alt.Scale(zero=False)),
        color=color,
        tooltip=["model:N", f"{column}:Q", "recall_perplexity:Q", "other_perplexity:Q"],
    ).properties(width=_SIDE, height=_SIDE)
