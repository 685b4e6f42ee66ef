"""The charts of the study of delimiters."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.lab.studies.delimiters.claim import dip_rows
from statesize.lab.studies.delimiters.dips import CLAIM_METRIC, ModelDips
from statesize.lab.studies.delimiters.modulation import ALL
from statesize.lab.studies.delimiters.sequences import CONDITIONS, OBSERVED
from statesize.lab.studies.page.charts import chart_data, palette, percent, rounded

_WIDTH, _HEIGHT = 360, 220
_TITLES = {"tolerance": "ESS, fixed τ", "entropy": "Entropy-ESS", "relative": "ESS, relative τ", "norm": "‖H‖"}


def delimiters_charts(models: Sequence[ModelDips]) -> alt.VConcatChart:
    """ESS around the delimiter with its controls, four charts a model, and the depths of layers and heads."""
    curves = [
        alt.concat(*(_curves(model, metric) for metric in _TITLES), columns=2).resolve_scale(y="independent")
        for model in models
    ]
    return alt.vconcat(*curves, _depths(models), _heads(models)).resolve_scale(color="independent")


def _curves(model: ModelDips, metric: str) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(vars(point) for point in model.curve if point.metric == metric)
    base = alt.Chart(data, title=f"{model.model}: {_TITLES[metric]}").encode(
        x=alt.X("offset:Q", title="Tokens from the cut after the delimiter"),
        color=palette("condition", "Condition").sort(list(CONDITIONS)),
    )
    y = alt.Y("low:Q", title="Share of its mean around", axis=percent(), scale=alt.Scale(zero=False))
    bands = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q")
    lines = base.mark_line(point=alt.OverlayMarkDef(size=16)).encode(
        y="share:Q", tooltip=["condition:N", "offset:Q", rounded("share", ".1%")]
    )
    return alt.layer(bands, lines).properties(width=_WIDTH, height=_HEIGHT)


def _depths(models: Sequence[ModelDips]) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(row for row in dip_rows(models) if row["metric"] == CLAIM_METRIC and row["layer"] == ALL)
    base = alt.Chart(data, title="Depth of the dip, with intervals of 95 %").encode(
        y=alt.Y("condition:N", title=None, sort=list(CONDITIONS)),
        color=palette("model", "Model"),
        yOffset="model:N",
        tooltip=["model:N", "condition:N", *(rounded(name, ".1%") for name in ("depth", "low", "high"))],
    )
    rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="Depth (fixed τ)", axis=percent()), x2="high:Q")
    depths = base.mark_point(filled=True).encode(x="depth:Q")
    return alt.layer(rules, depths).properties(width=2 * _WIDTH, height=_HEIGHT)


def _heads(models: Sequence[ModelDips]) -> alt.Chart | alt.FacetChart:
    shown = (CLAIM_METRIC, OBSERVED)
    data = chart_data(
        row for row in dip_rows(models) if (row["metric"], row["condition"]) == shown and row["head"] != ALL
    )
    return (
        alt.Chart(data, title="Depth of each head at the delimiter")
        .mark_rect()
        .encode(
            x=alt.X("head:O", title="Head or channel"),
            y=alt.Y("layer:N", title=None),
            row=alt.Row("model:N", title=None),
            color=alt.Color("depth:Q", title="Depth", scale=alt.Scale(scheme="blueorange", domainMid=0)),
            tooltip=["model:N", "layer:N", "head:O", rounded("depth", ".1%")],
        )
        .properties(width=_WIDTH)
    )
