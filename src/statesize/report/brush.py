"""The strip below the curves of a report on which a range is marked to zoom in."""

from __future__ import annotations

import altair as alt


def brush_chart() -> alt.Chart:
    """The mean curve of a sequence with an interval to be drawn on it, without its data.

    Returns:
        A chart of the named dataset "positions" (position, ess), whose signal "brush" is the interval.
    """
    scale = alt.Scale(nice=False, zero=False)
    return (
        alt.Chart(alt.NamedData("positions"))
        .mark_area(opacity=0.3, line={"strokeWidth": 1}, color="var(--accent)")
        .encode(
            x=alt.X("position:Q", title=None, scale=scale, axis=alt.Axis(labels=False, ticks=False)),
            y=alt.Y("ess:Q", title=None, axis=None),
        )
        .add_params(alt.selection_interval(name="brush", encodings=["x"]))
        .properties(width="container", height=44)
    )
