"""The charts of `.plot` and `.figure` of a measurement; altair is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from statesize.measurement import charts as measured
from statesize.measurement.chart import Chart, Metric

if TYPE_CHECKING:
    import altair as alt


def notebook_chart(chart: Chart) -> alt.LayerChart:
    """A chart by altair, which is imported now."""
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

    measurement: measured.Measured
    draw: Callable[[Chart], alt.LayerChart]

    def positions(self, metric: Metric = "entropy") -> alt.LayerChart:
        """ESS over positions against its ceiling; a metric that was not measured is an InputError.

        Args:
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            The chart.
        """
        return self.draw(measured.positions(self.measurement, metric))

    def spectrum(self, position: int | None = None) -> alt.LayerChart:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.

        Returns:
            The chart; zeros are left out, as the axis is logarithmic.
        """
        return self.draw(measured.spectrum(self.measurement, position))

    def tolerance(self) -> alt.LayerChart:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Returns:
            The chart.
        """
        return self.draw(measured.tolerance(self.measurement))
