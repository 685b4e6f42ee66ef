"""Charts of one measurement, each batch entry faint, and their mean."""

from __future__ import annotations

from typing import Any, cast

import altair as alt
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from statesize.errors import InputError
from statesize.measurement.result import Measurement
from statesize.report import vega
from statesize.report.chart_tables import (
    Metric,
    index_of,
    known,
    lines,
    metric_title,
    position_tables,
    table,
    tolerance_tables,
)

_RATIOS = np.logspace(-8, 0, 65)


class MeasurementCharts:
    """Charts of one measurement.

    Args:
        measurement: What `statesize.measure` returned.
        paper: Whether they are as wide as a column of a paper, such as for `.positions().save("ess.pdf")`.

    Example:
        >>> import torch
        >>> import statesize as ss
        >>> MeasurementCharts(ss.measure(torch.ones(6, 6).tril())).positions()
        Chart: Entropy-ESS (dense)
        Entropy-ESS by Position in the sequence (tokens)
    """

    def __init__(self, measurement: Measurement, *, paper: bool = False) -> None:
        self._measurement, self._paper = measurement, paper

    def __repr__(self) -> str:
        return "Charts of a Measurement: positions, spectrum, tolerance"

    def positions(self, metric: Metric = "entropy") -> alt.LayerChart:
        """ESS over positions against its ceiling.

        Args:
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            The chart.

        Raises:
            InputError: If the metric was not measured.
        """
        title, measurement = metric_title(metric), self._measurement
        values: Tensor | None = getattr(measurement, metric)
        if values is None or (metric != "entropy" and not values.shape[-1]):
            raise InputError(f"the measurement has no {metric}; ask measure for it")
        bounds = (values, values) if metric == "entropy" else (part[..., 0] for part in measurement.bounds(metric))
        lower, upper = (_flat(bound, 1) for bound in bounds)
        positions, ceiling = measurement.positions.cpu().numpy(), measurement.ceiling.cpu().numpy()
        norm = _flat(measurement.norm, 1).mean(0)
        tables = position_tables(_names(lower), positions, (lower, upper), ceiling, norm=norm)
        return vega.positions_chart(tables, f"{title} ({measurement.engine})", title, paper=self._paper)

    def spectrum(self, position: int | None = None) -> alt.LayerChart:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.

        Returns:
            The chart; zeros are left out, as the axis is logarithmic.
        """
        positions = cast("list[int]", cast("Any", self._measurement.positions).tolist())
        column = index_of(position, positions)
        values = self._singular_values()[:, column]
        mean = values.mean(0)
        index: NDArray[np.int64] = np.arange(1, len(mean) + 1)
        tables = {
            "lines": lines(_names(values), index=index, ratio=np.where(values > 0, values, np.nan)),
            "values": known(table(index=index, ratio=np.where(mean > 0, mean, np.nan))),
        }
        return vega.spectrum_chart(tables, f"Spectrum at position {positions[column]}", "σ_m", paper=self._paper)

    def tolerance(self) -> alt.LayerChart:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Returns:
            The chart.
        """
        values = self._singular_values()
        largest = values[..., :1]
        heads = np.stack([(values > ratio * largest).sum(-1).mean(-1) for ratio in _RATIOS], -1)
        tables = tolerance_tables(_names(heads), _RATIOS, (heads, heads))
        return vega.tolerance_chart(tables, "ESS at every tolerance", paper=self._paper)

    def _singular_values(self) -> NDArray[np.float64]:
        """(batch entries, P, r)."""
        if self._measurement.values is None:
            raise InputError("the measurement has no singular values; measure with outputs=('values',) among them")
        return _flat(self._measurement.values, 2)


def _names(entries: NDArray[Any]) -> list[str]:
    return [f"entry {entry}" for entry in range(len(entries))]


def _flat(values: Tensor, last: int) -> NDArray[np.float64]:
    """Batch entries as one dimension, and the others."""
    shape = values.shape[values.ndim - last :]
    return values.detach().double().cpu().reshape(-1, *shape).numpy()
