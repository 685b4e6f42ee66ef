"""Drawings as matplotlib figures at the size of a column of a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from statesize.drawing.curves import COLOURS, Drawing, roles
from statesize.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (3.25, 2.2)
"""Width and height in inches: one of two columns."""
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


def figure(drawing: Drawing) -> Figure:
    """A figure for a paper; `.savefig("name.pdf")` writes it.

    No state of pyplot is used or changed.

    Args:
        drawing: What is drawn.

    Returns:
        A figure of SIZE.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("figures need matplotlib, which is not installed: pip install 'statesize[figures]'") from error
    with mpl.rc_context(cast("Any", _STYLE)):
        drawn = Figure(figsize=SIZE, layout="constrained")
        axes: Any = drawn.add_subplot()
        labelled: set[str] = set()
        for line in drawing.curves:
            faint = line.role == "single heads"
            axes.plot(
                line.x,
                line.y,
                color=COLOURS[line.role],
                linewidth=0.5 if faint else 1.2,
                linestyle="--" if line.role == "ceiling" else "-",
                marker="o" if drawing.marked else None,
                markersize=2,
                zorder={"single heads": 2, "ceiling": 3, "mean": 4}[line.role],
                label=None if line.role in labelled else line.role,
            )
            labelled.add(line.role)
        axes.set(xlabel=drawing.x_title, ylabel=drawing.y_title)
        axes.set_xscale("log" if drawing.log_x else "linear")
        axes.set_yscale("log" if drawing.log_y else "linear")
        axes.spines[["top", "right"]].set_visible(False)
        if len(roles(drawing)) > 1:
            axes.legend(fontsize=_FONT_SIZE - 1)
    return drawn
