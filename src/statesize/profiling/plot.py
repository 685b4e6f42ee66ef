"""Charts of a profile for notebooks; the report draws the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair as alt

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
