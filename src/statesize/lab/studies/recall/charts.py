"""The charts of the study of recall."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.page.charts import SIDE, chart_data, palette, points
from statesize.lab.studies.recall.claim import ModelRecall, recall_rows
from statesize.lab.studies.recall.score import SLICES


def recall_charts(models: Sequence[ModelRecall]) -> alt.VConcatChart:
    """Perplexities of each slice, and that of repeated bigrams against depth and ESS."""
    titles = {"depth": "Depth of the dip at delimiters", "ess": "Entropy-ESS away from delimiters"}
    against = [
        points(
            chart_data(recall_rows(models)),
            "Repeated bigrams",
            alt.X(f"{column}:Q", title=title, scale=alt.Scale(zero=False)),
            alt.Y("recall_perplexity:Q", title="Perplexity", scale=alt.Scale(zero=False)),
            palette("model", "Model"),
            ["model:N", f"{column}:Q", "recall_perplexity:Q", "other_perplexity:Q"],
        )
        for column, title in titles.items()
    ]
    return alt.vconcat(_slices(models), alt.hconcat(*against))


def _slices(models: Sequence[ModelRecall]) -> alt.Chart:
    data = chart_data(
        {"model": model.model, "slice": name, "perplexity": model.score.perplexity(name)}
        for model in models
        for name in SLICES
    )
    axis = alt.Axis(format="~s", tickCount=6, labelOverlap=True)
    chart = points(
        data,
        "Perplexity of tokens by what the context has shown",
        alt.X("perplexity:Q", title="Perplexity", scale=alt.Scale(type="log"), axis=axis),
        alt.Y("slice:N", title=None, sort=list(SLICES)),
        palette("model", "Model"),
        ["model:N", "slice:N", "perplexity:Q"],
    )
    return chart.encode(yOffset="model:N").properties(width=2 * SIDE)
