"""What `series` returns: how ESS of each layer changes from one checkpoint of a training to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from statesize.io.text import counted
from statesize.lab.trends.charts import change_chart, levels_chart, log_charts, place_axis
from statesize.lab.trends.checkpoints import Log
from statesize.lab.trends.trend import AVERAGE, Trend, known_throughout
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, between, mean_interval
from statesize.report.chart_tables import Row


@dataclass(frozen=True)
class Change:
    """By how much a layer's ESS differs between two checkpoints, over the texts that all checkpoints have.

    Attributes:
        before: Name of the first of the two.
        after: Name of the second.
        from_value: Mean over texts at the first.
        to_value: At the second.
        difference: Mean of the differences, with an interval of 95 % by Student's t over the texts; where it is the
            largest of several differences, corrected for all of them (Bonferroni).
    """

    before: str
    after: str
    from_value: float
    to_value: float
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON holds it.

        Returns:
            The names, the difference and its interval.
        """
        told = {"from": self.before, "to": self.after}
        return {**told, "difference": self.difference.value, "interval": self.difference.ends}

    def __str__(self) -> str:
        return f"from {self.from_value:.1f} at {self.before} to {self.to_value:.1f} at {self.after}"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Series(Trend):
    """ESS of the layers of a model at checkpoints of its training.

    Attributes:
        log: Losses and accuracies by step, where there is a log.
        tokens: How many each text has.
    """

    log: Log
    tokens: tuple[int, ...]

    title = "Effective state-size through a training"
    kinds = ("checkpoints", "step")

    @property
    def about(self) -> str:
        """What the numbers of the table are."""
        measured = f"Measured: {self._measured()} heads or channels{self._of_layers}."
        if len(self.names) == 1:
            return measured
        few = f". There are no intervals, which need at least {FEWEST_TEXTS} texts"
        corrected = "; that of the largest change is corrected for how many changes there are" if self.enough else few
        return f"Differences are means over texts{corrected}. {measured}"

    def change(self, layer: str = AVERAGE) -> Change:
        """From the first checkpoint to the last.

        Args:
            layer: As for `values`.

        Returns:
            The change of its entropy-ESS.
        """
        return self._change(layer, 0, len(self.names) - 1)

    def largest_change(self, layer: str = AVERAGE) -> Change:
        """The largest change from one checkpoint to the next.

        Args:
            layer: As for `values`.

        Returns:
            The change of its entropy-ESS, with an interval for all changes together.
        """
        means = self.means(layer)
        after = int(np.nan_to_num(np.abs(np.diff(means))).argmax()) + 1 if len(means) > 1 else 0
        return self._change(layer, max(after - 1, 0), after, max(len(means) - 1, 1))

    def _change(self, layer: str, before: int, after: int, looks: int = 1) -> Change:
        first, second = known_throughout(self.values(layer))[[before, after]]
        difference, means = mean_interval(second - first, looks=looks), self.means(layer).tolist()
        return Change(self.names[before], self.names[after], means[before], means[after], difference)

    @property
    def finding(self) -> str:
        """How the mean over all channels changes, and which layer changes most from one checkpoint to the next."""
        if self._no_average:
            return self._no_average
        whole = self.change()
        if len(self.names) == 1:
            only = f"{whole.to_value:.1f} at {self.names[0]}, the only checkpoint that was measured"
            return f"Entropy-ESS{self._chosen}, averaged over cuts, is {only}."
        by_layer = {layer: self.largest_change(layer) for layer in self.layers}
        layer = max(by_layer, key=lambda name: abs(by_layer[name].difference.value))
        texts = (f"{self.units} of " if self.units < self.texts else "") + counted(self.texts, "text")
        return (
            f"Entropy-ESS{self._chosen}, averaged over cuts, goes {whole}: {whole.difference:+.2f} over {texts}. The "
            f"largest change between neighbouring checkpoints is that of {layer}, {by_layer[layer]}: "
            f"{by_layer[layer].difference:+.2f}."
        )

    def _own(self) -> Row:
        return {"log": self.log, "tokens": self.tokens}

    def _of_layer(self, layer: str) -> Row:
        return {"change": self.change(layer), "largest_change": self.largest_change(layer)}

    def _charts(self) -> Iterator[tuple[str, alt.LayerChart, str]]:
        x = place_axis("Checkpoint" if self.places is None else "Step", whole=self.places is None)
        places = self.places or tuple(range(len(self.names)))
        caption = (
            "When does the memory of each layer develop? Each faint line is a layer, the strong one the mean over all "
            f"channels. All checkpoints read the same {counted(self.texts, 'text')} ({sum(self.tokens):,} tokens), at "
            "the same positions, heads and channels."
        )
        levels = levels_chart(x, places, self.means(), {layer: self.means(layer) for layer in self.layers})
        yield "Entropy-ESS of each layer, and the mean over all channels", levels, caption
        if len(self.names) > 1:
            known = known_throughout(self.values())
            changes = change_chart(x, places, [mean_interval(row) for row in known - known[0]])
            yield "Change since the first checkpoint, mean over all channels", changes, ""
        for title, chart in () if self.places is None else log_charts(x, self.log):
            yield title, chart, ""

    def _rows(self) -> list[Row]:
        return [self._row(layer) for layer in (AVERAGE, *self.layers)]

    def _row(self, layer: str) -> Row:
        largest = self.largest_change(layer)
        metrics = ("entropy", "relative_lower", "relative_upper", "norm")
        means, least, most, norms = (self.means(layer, metric) for metric in metrics)
        # Text where a number alone would hide that a count is known between bounds only.
        first, last = (
            float(low) if low == high else between(low, high, "{:.4g}".format)
            for low, high in ((least[0], most[0]), (least[-1], most[-1]))
        )
        if len(self.names) == 1:
            return {"layer": layer, "entropy-ESS": float(means[0]), "count": first, "norm": float(norms[0])}
        return {
            "layer": layer,
            "first entropy-ESS": float(means[0]),
            "last entropy-ESS": float(means[-1]),
            "difference": f"{self.change(layer).difference:+.2f}",
            "largest change": f"{largest.difference:+.2f}, {largest.before} → {largest.after}",
            "first count": first,
            "last count": last,
            "first norm": float(norms[0]),
            "last norm": float(norms[-1]),
        }
