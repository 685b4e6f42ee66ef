"""Charts and facts of a measurement; altair is imported when a chart is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from statesize.errors import InputError
from statesize.measurement.chart import (
    METRICS,
    POSITIONS,
    SPECTRUM,
    TOLERANCE,
    Axis,
    Chart,
    Metric,
    index_of,
    known,
    lines,
    metric_title,
    position_tables,
    table,
    tolerance_tables,
)
from statesize.measurement.statistics import between

if TYPE_CHECKING:
    import altair as alt
    from torch import Tensor

    from statesize.measurement.measurement import Measurement

_RATIOS = np.logspace(-8, 0, 65)


def notebook_chart(chart: Chart) -> alt.LayerChart:
    """A chart for a notebook."""
    from statesize.measurement.vega import vega_chart

    return vega_chart(chart)


def paper_figure(chart: Chart) -> alt.LayerChart:
    """The same as wide as a column of a paper; `.save("name.pdf")` writes it, as it does .svg and .png."""
    from statesize.measurement.vega import paper_chart

    return paper_chart(chart)


@dataclass(frozen=True)
class MeasurementCharts:
    """Charts of one measurement: each batch entry faint, and their mean.

    `.plot` of a measurement draws them for notebooks, `.figure` as wide as a column of a paper.

    Attributes:
        measurement: The measurement.
        draw: From a description to a chart of altair.
    """

    measurement: Measurement
    draw: Callable[[Chart], alt.LayerChart]

    def positions(self, metric: Metric = "entropy") -> alt.LayerChart:
        """ESS over positions against its ceiling.

        Args:
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            The chart.

        Raises:
            InputError: If the metric was not measured.
        """
        title, measurement = metric_title(metric), self.measurement
        values: Tensor | None = getattr(measurement, metric)
        if values is None or (metric != "entropy" and not values.shape[-1]):
            raise InputError(f"the measurement has no {metric}; ask measure for it")
        bounds = (values, values) if metric == "entropy" else (part[..., 0] for part in _bounds(measurement, metric))
        lower, upper = (_flat(bound, 1) for bound in bounds)
        positions, ceiling = measurement.positions.cpu().numpy(), measurement.ceiling.cpu().numpy()
        norm = _flat(measurement.norm, 1).mean(0)
        tables = position_tables(_names(lower), positions, (lower, upper), ceiling, norm=norm)
        return self.draw(replace(POSITIONS, title=f"{title} ({measurement.engine})", y=Axis(title), tables=tables))

    def spectrum(self, position: int | None = None) -> alt.LayerChart:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.

        Returns:
            The chart; zeros are left out, as the axis is logarithmic.
        """
        positions = cast("list[int]", cast("Any", self.measurement.positions).tolist())
        column = index_of(position, positions)
        values = _singular_values(self.measurement)[:, column]
        mean = values.mean(0)
        index: NDArray[np.int64] = np.arange(1, len(mean) + 1)
        tables = {
            "lines": lines(_names(values), index=index, ratio=np.where(values > 0, values, np.nan)),
            "values": known(table(index=index, ratio=np.where(mean > 0, mean, np.nan))),
        }
        title = f"Spectrum at position {positions[column]}"
        return self.draw(replace(SPECTRUM, title=title, y=Axis("σ_m", "log"), tables=tables))

    def tolerance(self) -> alt.LayerChart:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Returns:
            The chart.
        """
        values = _singular_values(self.measurement)
        largest = values[..., :1]
        heads = np.stack([(values > ratio * largest).sum(-1).mean(-1) for ratio in _RATIOS], -1)
        tables = tolerance_tables(_names(heads), _RATIOS, (heads, heads))
        return self.draw(replace(TOLERANCE, title="ESS at every tolerance", tables=tables))


def _bounds(measurement: Measurement, metric: Metric) -> tuple[Tensor, Tensor]:
    lower, upper = ("relative_lower", "relative_upper") if metric == "relative_count" else ("lower", "upper")
    return getattr(measurement, lower), getattr(measurement, upper)


def facts(measurement: Measurement) -> dict[str, object]:
    """What a notebook shows of a measurement, by name."""
    positions = cast("list[int]", cast("Any", measurement.positions).tolist())
    if not positions:
        return {"positions": "none", "engine": measurement.engine}
    shown: dict[str, object] = {
        "batch shape": tuple(measurement.norm.shape[:-1]),
        "positions": f"{len(positions)}, {positions[0]} … {positions[-1]}",
        "ceiling, mean": f"{measurement.ceiling.double().mean():.4g}",
    }
    if measurement.entropy is not None:
        shown["entropy-ESS, mean"] = f"{measurement.entropy.mean():.4g}"
    signs: tuple[tuple[Metric, str, str], ...] = (
        ("relative_count", "relative_tolerances", "ρ"),
        ("count", "tolerances", "τ"),
    )
    for name, threshold_name, sign in signs:
        counts: Tensor | None = getattr(measurement, name)
        thresholds = getattr(measurement, threshold_name).tolist()
        for index, threshold in enumerate(thresholds if counts is not None else []):
            title = METRICS[name].lower().replace("ess", "ESS")
            least, most = (float(bound[..., index].double().mean()) for bound in _bounds(measurement, name))
            shown[f"{title} at {sign} = {threshold:g}, mean"] = between(least, most, "{:.4g}".format)
    if not (converged := measurement.converged).all():
        shown["bounds wider than asked"] = f"at {int((~converged).sum())} of {converged.numel()} positions"
    return shown | {"engine": measurement.engine, "error bound, largest": f"{measurement.error_bound.max():.2g}"}


def _singular_values(measurement: Measurement) -> NDArray[np.float64]:
    """(batch entries, P, r)."""
    if measurement.values is None:
        raise InputError("the measurement has no singular values; measure with outputs=('values',) among them")
    return _flat(measurement.values, 2)


def _names(entries: NDArray[Any]) -> list[str]:
    return [f"entry {entry}" for entry in range(len(entries))]


def _flat(values: Tensor, last: int) -> NDArray[np.float64]:
    """Batch entries as one dimension, and the others."""
    shape = values.shape[values.ndim - last :]
    return values.detach().double().cpu().reshape(-1, *shape).numpy()
