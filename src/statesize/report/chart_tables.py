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


def lines(names: Sequence[str], **columns: ArrayLike) -> list[Row]:
    """Rows of a line for each of some heads, evenly spread, from columns (N,) or (heads, N); none of a single head."""
    shape = np.broadcast_shapes((len(names), 1), *(np.shape(column) for column in columns.values()))
    values = {name: np.broadcast_to(np.asarray(column), shape) for name, column in columns.items()}
    heads: list[int] = evenly_spread(len(names), CHART_HEADS).tolist() if len(names) > 1 else []
    of_heads = {head: table(**{name: column[head] for name, column in values.items()}) for head in heads}
    rows = ({"head": names[head]} | row for head, line in of_heads.items() for row in line)
    return [row for row in rows if None not in row.values()]


_between = np.frompyfunc(lambda low, high: between(low, high, "{:.2f}".format), 2, 1)


def _band(low: NDArray[Any], high: NDArray[Any], **place: NDArray[Any]) -> list[Row]:
    """The band between bounds (N,); none where they are equal."""
    return table(low=low, high=high, **place) if (low < high).any() else []


def tolerance_tables(names: Sequence[str], ratios: NDArray[Any], bounds: Bounds) -> dict[str, list[Row]]:
    """Tables of `vega.tolerance_chart` at ratios (R,) from bounds of the counts of all heads, (heads, R) each."""
    low, high = (bound.mean(0) for bound in bounds)
    return {
        "rungs": lines(names, ratio=ratios, ess=(bounds[0] + bounds[1]) / 2, said=_between(*bounds)),
        "ladder": table(ratio=ratios, ess=(low + high) / 2, said=_between(low, high)),
        "bounds": _band(low, high, ratio=ratios),
    }


def position_tables(
    names: Sequence[str], positions: NDArray[Any], bounds: Bounds, ceiling: NDArray[Any], **columns: NDArray[Any]
) -> dict[str, list[Row]]:
    """Tables of `vega.positions_chart` where bounds of all heads, (heads, P) each, are known, with columns (P,)."""
    heads = (bounds[0] + bounds[1]) / 2
    inside = np.isfinite(heads).all(0)
    at, mean, top = positions[inside], heads[:, inside].mean(0), ceiling[inside]
    low, high = (bound[:, inside].mean(0) for bound in bounds)
    middles = (at[1:] + at[:-1]) / 2
    rows = table(
        position=at,
        # Where the pointer finds a position.
        left=np.append(at[:1], middles),
        right=np.append(middles, at[-1:]),
        ess=mean,
        said=_between(low, high),
        ceiling=top,
        share=np.divide(mean, top, out=np.full(len(at), np.nan), where=top > 0),
        **{name: values[inside] for name, values in columns.items()},
    )
    return {
        "positions": rows,
        # Points where a curve passes over cuts that were not measured.
        "cuts": rows if len(at) and np.ptp(at) >= len(at) else [],
        "heads": lines(names, position=at, ess=heads[:, inside]),
        "bounds": _band(low, high, position=at),
    }


def json_number(value: object) -> str | int | float | None:
    """A text or number as JSON holds it: four significant digits, and None for what is not finite."""
    if value is None or isinstance(value, str | int):
        return value
    number = float(value)  # pyright: ignore[reportArgumentType]
    if not np.isfinite(number):
        return None
    rounded = float(f"{number:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
