"""What charts show: metrics, roles with their colours, and tables of rows; `vega` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from statesize.check import require_choice
from statesize.measurement.statistics import between, evenly_spread, finite
from statesize.results.fields import arrays

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = Mapping[str, Sequence[Row]]
Bounds: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
Role: TypeAlias = Literal["mean", "single heads", "ceiling", "special token"]
Metric: TypeAlias = Literal["entropy", "relative_count", "count"]
METRICS: dict[Metric, str] = {
    name: arrays()[name].meaning.removesuffix(".") for name in ("entropy", "relative_count", "count")
}
"""What can be drawn over positions, with its title."""
COLOURS: dict[Role, str] = {
    "mean": "#0072B2",
    "single heads": "#7DB9DE",
    "ceiling": "#8C8C8C",
    "special token": "#D55E00",
}
# Okabe and Ito's palette, in an order whose neighbours differ most; each has contrast on white and on near-black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CHART_HEADS = 32
"""Single heads or channels that are drawn; evenly chosen where there are more."""


def metric_title(metric: str) -> str:
    """The title of one of METRICS; another metric is an InputError."""
    return METRICS[cast("Metric", require_choice("metric", metric, METRICS))]


def table(**columns: ArrayLike) -> list[Row]:
    """Rows from columns of equal length (N,); what is not known is None."""
    values = [np.asarray(column).tolist() for column in columns.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    return [{name: finite(value) if isinstance(value, float) else value for name, value in row.items()} for row in rows]


def position_tables(
    names: Sequence[str], positions: NDArray[Any], bounds: Bounds, ceiling: NDArray[Any], **columns: NDArray[Any]
) -> dict[str, list[Row]]:
    """Tables of `vega.positions_chart` where bounds of all heads, (heads, P) each, are known, with columns (P,)."""
    heads = (bounds[0] + bounds[1]) / 2
    inside = np.isfinite(heads).all(0)
    at, heads, top = positions[inside], heads[:, inside], ceiling[inside]
    low, high = (bound[:, inside].mean(0) for bound in bounds)
    mean, middles = heads.mean(0), (at[1:] + at[:-1]) / 2
    rows = table(
        position=at,
        # Where the pointer finds a position.
        left=np.append(at[:1], middles),
        right=np.append(middles, at[-1:]),
        ess=mean,
        said=[between(*ends, "{:.2f}".format) for ends in zip(low, high, strict=True)],
        ceiling=top,
        share=np.divide(mean, top, out=np.full(len(at), np.nan), where=top > 0),
        **{name: values[inside] for name, values in columns.items()},
    )
    shown = evenly_spread(len(names), CHART_HEADS) if len(names) > 1 else ()
    return {
        "positions": rows,
        # Points where a curve passes over cuts that were not measured.
        "cuts": rows if len(at) and np.ptp(at) >= len(at) else [],
        "heads": [{"head": names[head], **row} for head in shown for row in table(position=at, ess=heads[head])],
        "bounds": table(low=low, high=high, position=at) if (low < high).any() else [],
    }
