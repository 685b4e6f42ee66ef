"""The charts of the study of delimiters, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.delimiters.claim import dip_rows
from statesize.studies.delimiters.dips import CLAIM_METRIC, ModelDips
from statesize.studies.delimiters.measuring import METRICS
from statesize.studies.delimiters.modulation import ALL
from statesize.studies.delimiters.sequences import CONDITIONS, OBSERVED

_WIDTH, _HEIGHT = 360, 220
_TITLES = {"tolerance": "ESS, fixed τ", "entropy": "Entropy-ESS", "relative": "ESS, relative τ", "norm": "‖H‖"}


def delimiters_charts(models: Sequence[ModelDips]) -> alt.VConcatChart:
    """ESS around the delimiter with its controls, four charts a model, and the depths of layers and heads.

    Args:
        models: What was found.

    Returns:
        The charts with their data.
    """
    curves = [
        alt.concat(*(_curves(model, metric) for metric in METRICS), columns=2).resolve_scale(y="independent")
        for model in models
    ]
    return alt.vconcat(*curves, _depths(models), _heads(models)).resolve_scale(color="independent")


def _curves(model: ModelDips, metric: str) -> alt.LayerChart | alt.FacetChart:
    values = [
        {name: json_number(value) for name, value in vars(point).items()}
        for point in model.curve
        if point.metric == metric
    ]
    color = alt.Color("condition:N", title="Condition", sort=list(CONDITIONS), scale=alt.Scale(range=list(PALETTE)))
    base = alt.Chart(alt.Data(values=values), title=f"{model.model}: {_TITLES[metric]}").encode(
        x=alt.X("offset:Q", title="Tokens from the cut after the delimiter"), color=color
    )
    y = alt.Y("low:Q", title="Share of its mean around", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    bands = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q")
    lines = base.mark_line(point=alt.OverlayMarkDef(size=16)).encode(
        y="share:Q", tooltip=["condition:N", "offset:Q", alt.Tooltip("share:Q", format=".1%")]
    )
    return alt.layer(bands, lines).properties(width=_WIDTH, height=_HEIGHT)


def _depths(models: Sequence[ModelDips]) -> alt.LayerChart | alt.FacetChart:
    values = [
        {name: json_number(value) for name, value in row.items()}
        for row in dip_rows(models)
        if row["metric"] == CLAIM_METRIC and row["layer"] == ALL
    ]
    base = alt.Chart(alt.Data(values=values), title="Depth of the dip, with intervals of 95 %").encode(
        y=alt.Y("condition:N", title=None, sort=list(CONDITIONS)),
        color=alt.Color("model:N", title="Model", scale=alt.Scale(range=list(PALETTE))),
        yOffset="model:N",
        tooltip=[
            "model:N",
            "condition:N",
            *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("depth", "low", "high")),
        ],
    )
    x = alt.X("low:Q", title="Depth (fixed τ)", axis=alt.Axis(format="%"))
    rules = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    return alt.layer(rules, base.mark_point(filled=True).encode(x="depth:Q")).properties(
        width=2 * _WIDTH, height=_HEIGHT
    )


def _heads(models: Sequence[ModelDips]) -> alt.Chart | alt.FacetChart:
    values = [
        {name: json_number(value) for name, value in row.items()}
        for row in dip_rows(models)
        if (row["metric"], row["condition"]) == (CLAIM_METRIC, OBSERVED) and row["head"] != ALL
    ]
    return (
        alt.Chart(alt.Data(values=values), title="Depth of each head at the delimiter")
        .mark_rect()
        .encode(
            x=alt.X("head:O", title="Head or channel"),
            y=alt.Y("layer:N", title=None),
            row=alt.Row("model:N", title=None),
            color=alt.Color("depth:Q", title="Depth", scale=alt.Scale(scheme="blueorange", domainMid=0)),
            tooltip=["model:N", "layer:N", "head:O", alt.Tooltip("depth:Q", format=".1%")],
        )
        .properties(width=_WIDTH)
    )
