"""What was measured of an operator, with its facts and charts; altair is imported when a chart is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from statesize.errors import InputError
from statesize.io.text import facts_table
from statesize.measurement.chart import (
    METRICS,
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

_RATIOS = np.logspace(-8, 0, 65)


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """The result of `measure`, on the CPU; the fields of other outputs than the requested are None.

    Attributes:
        positions: Cut positions i, (P,) int64.
        tolerances: τ, (K,), in units of σ.
        relative_tolerances: ρ, (R,), in units of σ_1 at each position.
        count: #{σ > τ}, (..., P, K) int64.
        lower: The smallest tolerance-ESS that the error bound allows, (..., P, K).
        upper: The largest, (..., P, K).
        relative_count: #{σ > ρ σ_1}, (..., P, R) int64.
        relative_lower: The smallest that the error bound allows, (..., P, R).
        relative_upper: The largest, (..., P, R).
        entropy: exp of the entropy of σ/Σσ, (..., P); 0 where σ_1 is within the error bound.
        entropy_bound: |exact − entropy| is at most this, (..., P).
        norm: ‖H_i‖_F, (..., P).
        values: Singular values, (..., P, r), descending, zero-padded.
        state_size: TSS, (P,) int64.
        ceiling: The largest ESS possible, (P,) int64.
        binds: Whether the operator's own size is what limits ESS there, not the ends of the sequence, (P,) bool.
        engine: The engine that was used; two names where a safer one had to help.
        error_bound: δ ≥ |computed σ − σ|, (..., P), round-off included.
        converged: Whether counts at a position are exact and the entropy is known to 0.1 %, (..., P) bool. Only the
            engine `implicit`, for what no other can hold, regularly leaves wider bounds; others do where round-off is
            larger than that.
        past: The window on the past, or None.
        future: The window on the future, or None.
    """

    positions: Tensor
    tolerances: Tensor
    relative_tolerances: Tensor
    norm: Tensor
    error_bound: Tensor
    converged: Tensor
    state_size: Tensor
    ceiling: Tensor
    binds: Tensor
    engine: str
    count: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    relative_count: Tensor | None = None
    relative_lower: Tensor | None = None
    relative_upper: Tensor | None = None
    entropy: Tensor | None = None
    entropy_bound: Tensor | None = None
    values: Tensor | None = None
    past: int | None = None
    future: int | None = None

    @property
    def plot(self) -> MeasurementCharts:
        """The charts `.plot.positions()`, which `.plot()` gives, `.plot.spectrum()` and `.plot.tolerance()`."""
        return MeasurementCharts(self)

    def __repr__(self) -> str:
        """Means, engine and bounds, one per line.

        Returns:
            The facts that a notebook shows too.
        """
        lines = [f"  {name}: {value}" for name, value in facts(self).items()]
        known = "entropy, .plot.positions()"
        if self.entropy is None:
            known = "values" if self.count is None else "count"
        return "\n".join([_finding(self), *lines, f"next: .{known}"])

    def _repr_html_(self) -> str:
        return facts_table(_finding(self), facts(self))


class MeasurementCharts:
    """Charts of one measurement: each batch entry faint, and their mean.

    Args:
        measurement: The measurement.
        paper: Whether they are as wide as a column of a paper.
    """

    def __init__(self, measurement: Measurement, *, paper: bool = False) -> None:
        self._measurement, self._paper = measurement, paper

    def __repr__(self) -> str:
        return "Charts of a Measurement\nnext: .positions(), .spectrum(), .tolerance(), .paper.positions() for a paper"

    @property
    def paper(self) -> MeasurementCharts:
        """These charts as wide as a column of a paper, such as `.plot.paper.positions().save("ess.pdf")`."""
        return MeasurementCharts(self._measurement, paper=True)

    def __call__(self) -> alt.LayerChart:
        """The chart `positions`."""
        return self.positions()

    def positions(self, metric: Metric = "entropy") -> alt.LayerChart:
        """ESS over positions against its ceiling.

        Args:
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            The chart.

        Raises:
            InputError: If the metric was not measured.
        """
        from statesize.measurement import vega

        title, measurement = metric_title(metric), self._measurement
        values: Tensor | None = getattr(measurement, metric)
        if values is None or (metric != "entropy" and not values.shape[-1]):
            raise InputError(f"the measurement has no {metric}; ask measure for it")
        bounds = (values, values) if metric == "entropy" else (part[..., 0] for part in _bounds(measurement, metric))
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
        from statesize.measurement import vega

        positions = cast("list[int]", cast("Any", self._measurement.positions).tolist())
        column = index_of(position, positions)
        values = _singular_values(self._measurement)[:, column]
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
        from statesize.measurement import vega

        values = _singular_values(self._measurement)
        largest = values[..., :1]
        heads = np.stack([(values > ratio * largest).sum(-1).mean(-1) for ratio in _RATIOS], -1)
        tables = tolerance_tables(_names(heads), _RATIOS, (heads, heads))
        return vega.tolerance_chart(tables, "ESS at every tolerance", paper=self._paper)


def _bounds(measurement: Measurement, metric: Metric) -> tuple[Tensor, Tensor]:
    lower, upper = ("relative_lower", "relative_upper") if metric == "relative_count" else ("lower", "upper")
    return getattr(measurement, lower), getattr(measurement, upper)


def _finding(measurement: Measurement) -> str:
    """The mean entropy-ESS below its ceiling, where both are known."""
    if measurement.entropy is None or not measurement.entropy.numel():
        return "Measurement"
    most = measurement.ceiling.double().expand_as(measurement.entropy).mean()
    return f"Measurement: {measurement.entropy.mean():.1f} numbers per channel on average, of at most {most:.1f}"


def facts(measurement: Measurement) -> dict[str, object]:
    """What a notebook shows of a measurement, by name."""
    positions = cast("list[int]", cast("Any", measurement.positions).tolist())
    if not positions:
        return {"positions": "none", "engine": measurement.engine}
    if not measurement.norm.numel():
        return {"batch shape": tuple(measurement.norm.shape[:-1]), "engine": measurement.engine}
    shown: dict[str, object] = {
        "batch shape": tuple(measurement.norm.shape[:-1]),
        "positions": f"{len(positions)}, {positions[0]} … {positions[-1]}",
        "ceiling, mean": f"{measurement.ceiling.double().mean():.4g}",
    }
    if measurement.entropy is not None:
        shown["entropy-ESS, mean"] = f"{measurement.entropy.mean():.4g}"
    kinds: tuple[tuple[Metric, Tensor, str], ...] = (
        ("relative_count", measurement.relative_tolerances, "ρ"),
        ("count", measurement.tolerances, "τ"),
    )
    for name, thresholds, sign in kinds:
        told: list[str] = []
        for index, threshold in enumerate(thresholds if getattr(measurement, name) is not None else []):
            least, most = (float(bound[..., index].double().mean()) for bound in _bounds(measurement, name))
            told.append(f"{between(least, most, '{:.4g}'.format)} at {sign} = {threshold:g}")
        if told:
            shown[f"{METRICS[name].lower().replace('ess', 'ESS')}, mean"] = ", ".join(told)
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
