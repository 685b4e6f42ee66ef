"""The charts of `.plot` and `.figure` of a measurement; altair and matplotlib are imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from statesize.measurement import charts as measured
from statesize.measurement.chart import Chart, Metric

if TYPE_CHECKING:
    import altair as alt


Drawn = TypeVar("Drawn")


def notebook_chart(chart: Chart) -> alt.LayerChart:
    """A chart by altair, which is imported now."""
    from statesize.measurement.vega import vega_chart

    return vega_chart(chart)


@dataclass(frozen=True)
class MeasurementCharts(Generic[Drawn]):
    """Charts of one measurement: each batch entry faint, and their mean.

    `.plot` of a measurement draws them by altair for notebooks, `.figure` by matplotlib (extra `figures`) at the size
    of a column of a paper.

    Attributes:
        measurement: The measurement.
        draw: From a description to a chart of either library.
    """

    measurement: measured.Measured
    draw: Callable[..., Drawn]

    def positions(self, metric: Metric = "entropy", **options: Any) -> Drawn:
        """ESS over positions against its ceiling; a metric that was not measured is an InputError.

        Args:
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.
            **options: For a figure: `ax`, matplotlib axes to draw into.

        Returns:
            The chart or figure.
        """
        return self.draw(measured.positions(self.measurement, metric), **options)

    def spectrum(self, position: int | None = None, **options: Any) -> Drawn:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.
            **options: As for `positions`.

        Returns:
            The chart or figure; zeros are left out, as the axis is logarithmic.
        """
        return self.draw(measured.spectrum(self.measurement, position), **options)

    def tolerance(self, **options: Any) -> Drawn:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Args:
            **options: As for `positions`.

        Returns:
            The chart or figure.
        """
        return self.draw(measured.tolerance(self.measurement), **options)
