"""The charts of a report that are drawn from counts at many relative tolerances."""

from __future__ import annotations

import altair as alt

_FAINT, _BOLD = "#7DB9DE", "var(--accent)"


def tolerance_chart() -> alt.LayerChart:
    """ESS against the relative tolerance, without its data.

    Returns:
        A chart of the named datasets "ladder" (ratio, ess, of) and "rungs" (ratio, ess, head).
    """
    ratio = alt.X("ratio:Q", title="Relative tolerance ρ", scale=alt.Scale(type="log"), axis=_decades())
    ess = alt.Y("ess:Q", title="ESS: singular values above ρ times the largest")
    faint = alt.Chart(alt.NamedData("rungs")).mark_line(strokeWidth=1, opacity=0.5, color=_FAINT)
    bold = alt.Chart(alt.NamedData("ladder"))
    tooltip = [
        alt.Tooltip("of:N"),
        alt.Tooltip("ratio:Q", format=".1e"),
        alt.Tooltip("ess:Q", format=".2f", title="ESS"),
    ]
    return alt.LayerChart(
        layer=[
            faint.encode(x=ratio, y=ess, detail="head:N"),
            bold.mark_line(strokeWidth=2.2, color=_BOLD).encode(x=ratio, y=ess),
            bold.mark_point(filled=True, size=60, color=_BOLD, opacity=1).encode(x=ratio, y=ess, tooltip=tooltip),
        ]
    ).properties(width="container", height=280)


def spectrum_chart() -> alt.LayerChart:
    """Singular values at a position, as far as the counts tell them, without its data.

    Returns:
        A chart of the named datasets "values" (index, low, high), each between two tolerances, and "lines" (index,
        ratio, head), through the middles of the ranges of each head.
    """
    index = alt.X(
        "index:Q",
        title="Index m of the singular value",
        scale=alt.Scale(domainMin=0, nice=False),
        axis=alt.Axis(format="d", tickMinStep=1),
    )
    scale = alt.Scale(type="log")
    height = alt.Y("ratio:Q", title="σ_m ÷ σ_1", scale=scale, axis=_decades())
    faint = alt.Chart(alt.NamedData("lines")).mark_line(
        strokeWidth=1, opacity=0.6, color=_FAINT, point=alt.OverlayMarkDef(size=14, color=_FAINT)
    )
    bold = alt.Chart(alt.NamedData("values")).mark_rule(strokeWidth=3, strokeCap="round", color=_BOLD)
    middle = alt.Tooltip("ratio:Q", title="about", format=".1e")
    tooltip = [
        alt.Tooltip("index:Q", title="m"),
        alt.Tooltip("low:Q", title="σ_m ÷ σ_1 above", format=".1e"),
        alt.Tooltip("high:Q", title="at most", format=".1e"),
    ]
    return alt.LayerChart(
        layer=[
            faint.encode(x=index, y=height, detail="head:N", tooltip=["head:N", "index:Q", middle]),
            bold.encode(x=index, y=alt.Y("low:Q", scale=scale), y2="high:Q", tooltip=tooltip),
        ]
    ).properties(width="container", height=280)


def _decades() -> alt.Axis:
    return alt.Axis(format=".0e", values=[10.0**-decade for decade in range(13)], labelOverlap=True)
