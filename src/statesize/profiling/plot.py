"""Charts of a profile for notebooks, of which the report draws some too, and figures for papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from statesize.drawing.views import chart_of, figure_of
from statesize.results import charts as drawings

if TYPE_CHECKING:
    import altair as alt
    from matplotlib.figure import Figure

    from statesize.profiling.profile import Profile


@dataclass(frozen=True)
class ProfilePlot:
    """The charts of one profile.

    Attributes:
        profile: The profile.
    """

    profile: Profile

    def positions(self, layer: int | str = 0, sequence: int = 0, metric: str = "entropy") -> alt.LayerChart:
        """ESS over the positions of one sequence against its ceiling: the mean over heads, and each head faint.

        A layer, sequence or metric that is not there is an InputError.

        Args:
            layer: A mixer, by index or name.
            sequence: Index of the sequence.
            metric: "entropy", "relative_tolerance" or "tolerance"; the first threshold of the latter two.

        Returns:
            An altair chart.
        """
        from statesize.report.charts import profile_positions

        return profile_positions(self.profile, layer, sequence, metric)

    def layers(self) -> alt.Chart:
        """Utilisation of each layer.

        Returns:
            An altair chart.
        """
        from statesize.report.charts import profile_layers

        return profile_layers([self.profile])

    def spectrum(self, layer: int | str = 0, position: int | None = None, sequence: int = 0) -> alt.LayerChart:
        """Hankel singular values at a position, as far as the counts at the profile's relative tolerances tell them.

        Args:
            layer: A mixer, by index or name.
            position: One that was measured; None takes the middle one.
            sequence: Index of the sequence.

        Returns:
            An altair chart; a profile with fewer than three relative tolerances is an InputError.
        """
        return chart_of(drawings.spectrum(self.profile, layer, position, sequence))

    def tolerance(self, layer: int | str = 0) -> alt.LayerChart:
        """ESS against the profile's relative tolerances, averaged over sequences and positions.

        Args:
            layer: A mixer, by index or name.

        Returns:
            An altair chart; a profile with fewer than three relative tolerances is an InputError.
        """
        return chart_of(drawings.tolerance(self.profile, layer))


@dataclass(frozen=True)
class ProfileFigure:
    """Matplotlib figures of one profile, at the size of a column of a paper (extra `figures`).

    Attributes:
        profile: The profile.
    """

    profile: Profile

    def positions(self, layer: int | str = 0, sequence: int = 0, metric: str = "entropy") -> Figure:
        """ESS over the positions of one sequence against its ceiling.

        Args:
            layer: A mixer, by index or name.
            sequence: Index of the sequence.
            metric: As for `.plot.positions`.

        Returns:
            A figure.
        """
        return figure_of(drawings.positions(self.profile, layer, sequence, metric))

    def layers(self) -> Figure:
        """Utilisation of each layer.

        Returns:
            A figure.
        """
        return figure_of(drawings.layers(self.profile))

    def spectrum(self, layer: int | str = 0, position: int | None = None, sequence: int = 0) -> Figure:
        """Hankel singular values at a position; see `.plot.spectrum`.

        Args:
            layer: A mixer, by index or name.
            position: One that was measured; None takes the middle one.
            sequence: Index of the sequence.

        Returns:
            A figure.
        """
        return figure_of(drawings.spectrum(self.profile, layer, position, sequence))

    def tolerance(self, layer: int | str = 0) -> Figure:
        """ESS against the profile's relative tolerances; see `.plot.tolerance`.

        Args:
            layer: A mixer, by index or name.

        Returns:
            A figure.
        """
        return figure_of(drawings.tolerance(self.profile, layer))
