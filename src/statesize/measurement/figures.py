"""Charts as matplotlib figures at the size of a column of a paper; no state of pyplot is used or changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from statesize.errors import InputError
from statesize.measurement.chart import COLOURS, PALETTE, Axis, Chart, Layer, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SIZE = (3.25, 2.2)
"""Width and height in inches: one of two columns."""
_MOST_NAMES = 12
_FONT_SIZE = 8
_STYLE: dict[str, Any] = {
    "font.size": _FONT_SIZE,
    "axes.titlesize": _FONT_SIZE,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
    # Text stays text, so that a publisher's check finds no Type 3 fonts.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def paper_figure(chart: Chart, ax: Axes | None = None) -> Figure:
    """A figure of SIZE for a paper, or that of the axes given, drawn into; `.savefig("name.pdf")` writes it."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib, which is not installed: pip install matplotlib") from error
    with mpl.rc_context(cast("Any", _STYLE)):
        axes: Any = Figure(figsize=SIZE, layout="constrained").add_subplot() if ax is None else ax
        for layer in chart.shown:
            _draw(axes, chart, layer, chart.tables[layer.table])
        _scale(axes, "x", chart.x)
        _scale(axes, "y", chart.y)
        axes.spines[["top", "right"]].set_visible(False)
        labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if len(labels) > 1:
            above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": len(labels)}
            axes.legend(labels.values(), labels.keys(), fontsize=_FONT_SIZE - 1, columnspacing=1, **above)
    return axes.figure


def _scale(axes: Any, name: str, axis: Axis) -> None:
    scale = "log" if axis.scale in {"log", "ratio"} else "linear"
    start = {"index": (0, None), "share": (0, 1), "linear": (0, None)}.get(axis.scale)
    axes.set(**{f"{name}label": axis.title, f"{name}scale": scale}, **({f"{name}lim": start} if start else {}))


def _draw(axes: Any, chart: Chart, layer: Layer, rows: Sequence[Row]) -> None:
    match layer.mark:
        case "bar":
            _bars(axes, chart, layer, rows)
        case "rule":
            line = axes.axvline if layer.x else axes.axhline
            for row in rows:
                line(row[layer.x or layer.y], color=COLOURS[layer.role], linewidth=0.5, linestyle=":")
        case "line" | "area":
            for name in dict.fromkeys(row.get(layer.by) for row in rows):
                _curve(axes, layer, [row for row in rows if row.get(layer.by) == name])
        case _:  # Where a pointer finds a row.
            pass


def _curve(axes: Any, layer: Layer, rows: Sequence[Row]) -> None:
    faint = layer.role == "single heads"
    axes.plot(
        [row[layer.x] for row in rows],
        [row[layer.y] for row in rows],
        color=COLOURS[layer.role],
        linewidth=0.5 if faint else 1.2,
        linestyle="--" if layer.mark == "area" else "-",
        marker="o" if layer.points else None,
        markersize=2,
        zorder={"single heads": 2, "ceiling": 3}.get(layer.role, 4),
        label=layer.role,
    )


def _bars(axes: Any, chart: Chart, layer: Layer, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(row[layer.x] for row in rows))
    width = 0.8 / len(chart.groups)
    for index, group in enumerate(chart.groups):
        inside = [row for row in rows if row[layer.by] == group]
        places = np.array([names.index(row[layer.x]) for row in inside]) + (index - (len(chart.groups) - 1) / 2) * width
        heights = [np.nan if row[layer.y] is None else row[layer.y] for row in inside]
        axes.bar(places, heights, width, color=PALETTE[index % len(PALETTE)], label=group)
    step = -(-len(names) // _MOST_NAMES)
    axes.set_xticks(range(0, len(names), step), names[::step])
