"""What `.plot` and `.figure` of a measurement give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from statesize.drawing import measured

if TYPE_CHECKING:
    import altair as alt
    from matplotlib.figure import Figure

    from statesize.drawing.curves import Drawing
    from statesize.measurement import Measurement


@dataclass(frozen=True)
class MeasurementPlot:
    """Altair charts of one measurement: each batch entry faint, and their mean.

    Attributes:
        measurement: The measurement.
    """

    measurement: Measurement

    def positions(self, metric: str = "entropy") -> alt.LayerChart:
        """ESS over positions against its ceiling.

        Args:
            metric: "entropy", "relative_tolerance" or "tolerance"; the first threshold of the latter two.

        Returns:
            A chart.
        """
        return chart_of(measured.positions(self.measurement, metric))

    def spectrum(self, position: int | None = None) -> alt.LayerChart:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.

        Returns:
            A chart.
        """
        return chart_of(measured.spectrum(self.measurement, position))

    def tolerance(self) -> alt.LayerChart:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Returns:
            A chart.
        """
        return chart_of(measured.tolerance(self.measurement))


@dataclass(frozen=True)
class MeasurementFigure:
    """Matplotlib figures of one measurement, at the size of a column of a paper (extra `figures`).

    Attributes:
        measurement: The measurement.
    """

    measurement: Measurement

    def positions(self, metric: str = "entropy") -> Figure:
        """ESS over positions against its ceiling.

        Args:
            metric: As for `.plot.positions`.

        Returns:
            A figure.
        """
        return figure_of(measured.positions(self.measurement, metric))

    def spectrum(self, position: int | None = None) -> Figure:
        """Hankel singular values at a position; needs the output "values".

        Args:
            position: One that was measured; None takes the middle one.

        Returns:
            A figure.
        """
        return figure_of(measured.spectrum(self.measurement, position))

    def tolerance(self) -> Figure:
        """ESS against the relative tolerance, averaged over positions; needs the output "values".

        Returns:
            A figure.
        """
        return figure_of(measured.tolerance(self.measurement))


def chart_of(drawing: Drawing) -> alt.LayerChart:
    """The chart of a drawing; altair is imported now.

    Args:
        drawing: The drawing.

    Returns:
        The chart.
    """
    from statesize.drawing.charts import chart

    return chart(drawing)


def figure_of(drawing: Drawing) -> Figure:
    """The figure of a drawing; matplotlib is imported now.

    Args:
        drawing: The drawing.

    Returns:
        The figure.
    """
    from statesize.drawing.figures import figure

    return figure(drawing)
