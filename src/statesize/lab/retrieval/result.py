"""The result of needles: retrieval at each depth, ESS at the border, and which heads carry them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statesize.check import refuse
from statesize.io.text import facts_table
from statesize.lab.retrieval.charts import gain_chart, lift_chart
from statesize.lab.retrieval.layer import HeadNeedles, LayerNeedles, Numbers
from statesize.lab.studies.statistics import jackknife, of_mean, spearman
from statesize.lab.trends.page import Page, write_page
from statesize.lab.trends.trend import origin, reasons
from statesize.measurement.chart import Row
from statesize.measurement.statistics import Interval, finite, over_texts, signed


@dataclass(frozen=True, eq=False)
class Needles:
    """Retrieval of needles, and ESS at the border between needle and question.

    Attributes:
        model: Its name.
        depths: Tokens from needle to question, D of them.
        context: Tokens before the question.
        future: Tokens from the question on.
        retrieved: Whether the answer is the most probable token, (D, S) bool.
        guessed: The same of the texts without the needle, (D, S) bool.
        gain: Nats that the needle takes off the answer, (D, S).
        layers: What each layer carries.
        skipped: What could not be measured, and why.
        facts: Digest of the texts, settings, and versions.
    """

    model: str
    depths: tuple[int, ...]
    context: int
    future: int
    retrieved: NDArray[np.bool_]
    guessed: NDArray[np.bool_]
    gain: Numbers
    layers: tuple[LayerNeedles, ...]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def excerpts(self) -> int:
        """How many texts were read, S."""
        return self.retrieved.shape[1]

    def accuracy(self, depth: int) -> Interval:
        """The share of needles that are retrieved.

        Args:
            depth: One of `depths`.

        Returns:
            With an interval of 95 % over texts, by Student's t.

        Raises:
            InputError: The depth was not measured.
        """
        interval = of_mean(self.retrieved[self._place(depth)].astype(np.float64)).interval()
        return over_texts(interval, self.excerpts, 0, 1)

    def gains(self, depth: int) -> Interval:
        """How many nats the needle takes off the answer.

        Args:
            depth: One of `depths`.

        Returns:
            With an interval of 95 % over texts, by Student's t.

        Raises:
            InputError: The depth was not measured.
        """
        return over_texts(of_mean(self.gain[self._place(depth)]).interval(), self.excerpts)

    def heads(self, depth: int) -> list[HeadNeedles]:
        """What each head has of the needle, largest lift first.

        Args:
            depth: One of `depths`.

        Returns:
            One entry a head or channel.

        Raises:
            InputError: The depth was not measured.
        """
        return list(self._ranked[self._place(depth)])

    def relation(self, layer: str, depth: int) -> Interval:
        """How the ESS of a layer at the border goes with the needle's gain for the model, from text to text.

        Args:
            layer: Name of one of `layers`.
            depth: One of `depths`.

        Returns:
            Spearman's correlation of ESS (joint, where heads share a cache) and `gain`, with a jackknife interval of
            95 % over texts; NaN where one of them is constant.

        Raises:
            InputError: There is no such layer, or the depth was not asked.
        """
        row, names = self._place(depth), [one.name for one in self.layers]
        if layer not in names:
            refuse("layer", f"one of {', '.join(names)}", layer)
        carried, gain = self.layers[names.index(layer)].carried[row], self.gain[row]
        texts = np.arange(len(gain))
        return jackknife(lambda rows: spearman(carried[rows], gain[rows]), texts, correlation=True).interval()

    @property
    def finding(self) -> str:
        """How much is retrieved at each depth, and which head sees most of the needle, in two sentences."""
        times = {depth: math.exp(self.gains(depth).value) for depth in self.depths}
        listed = ", ".join(
            f"{self.accuracy(depth).value:.0%} {depth} tokens back (answer {times[depth]:.3g} × as probable)"
            for depth in self.depths
        )
        retrieved = f"Of needles {self.model} finds {listed}."
        first = [self.heads(depth)[0] for depth in self.depths]
        clear = [head for head in first if head.lift.low > 0]
        if not clear:
            return f"{retrieved} No head clearly sees more of a needle than of plain text there."
        most = max(clear, key=lambda head: head.lift.value)
        return (
            f"{retrieved} Unit {most.unit} of {most.layer} sees most of them: {most.depth} tokens back the needle has "
            f"{most.share:.0%} of the question’s row, {100 * most.lift.value:.0f} points more than plain text there."
        )

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values.

        Returns:
            What `statesize needles --json` prints.
        """
        return {
            "model": self.model,
            "context": self.context,
            "future": self.future,
            "excerpts": self.excerpts,
            "finding": self.finding,
            "depths": [
                {
                    "depth": depth,
                    "accuracy": self.accuracy(depth).value,
                    "interval": self.accuracy(depth).ends,
                    "guessed": float(self.guessed[row].mean()),
                    "gain": self.gains(depth).value,
                    "gain_interval": self.gains(depth).ends,
                    "layers": [self._layer(layer, row) for layer in self.layers],
                    "heads": [_told(head) for head in self.heads(depth)],
                }
                for row, depth in enumerate(self.depths)
            ],
            "skipped": reasons(self.skipped),
            **self.facts,
        }

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Writes a page with retrieval, what the heads see of the needle, and ESS at the border.

        Args:
            path: File to write.

        Returns:
            The file.
        """
        return write_page(
            Page(
                title=f"Needles in {self.model}",
                finding=self.finding,
                question="Does it find what was said before, and which heads carry it?",
                lead=f"Two random tokens are put into {self.excerpts} pieces of text; after {self.context} tokens the "
                "first comes again, and the second is the answer. Each faint line is a head: how much more of the "
                "question’s row of T the needle has than plain text at the same positions.",
                charts=[
                    gain_chart(self.depths, [self.gains(depth) for depth in self.depths]),
                    lift_chart([head for depth in self.depths for head in self.heads(depth)]),
                ],
                about="ESS is that of the cut before the question, mean over texts; lost is what goes with the two "
                "columns of the needle. Intervals of 95 % are by Student’s t over the texts; that of the lift is "
                "corrected for the number of heads.",
                rows=[_row(head) for depth in self.depths for head in self.heads(depth)],
                skipped=self.skipped,
                facts=origin(self.facts),
            ),
            Path(path),
        )

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            f"{depth} tokens back": f"{self.accuracy(depth)} retrieved, {self.gains(depth)} nats"
            for depth in self.depths
        }
        return facts_table(f"Needles in {self.model}", facts | {"Finding": self.finding})

    def _place(self, depth: int) -> int:
        if depth not in self.depths:
            refuse("depth", f"one of {', '.join(map(str, self.depths))}", depth)
        return self.depths.index(depth)

    @cached_property
    def _ranked(self) -> list[list[HeadNeedles]]:
        """The heads of each depth, largest lift first."""
        by_depth = [list(self._heads(row)) for row in range(len(self.depths))]
        return [sorted(heads, key=lambda head: head.lift.value, reverse=True) for heads in by_depth]

    def _heads(self, row: int) -> Iterator[HeadNeedles]:
        looks = sum(layer.units for layer in self.layers)
        for layer in self.layers:
            lost, lift = layer.entropy[row] - layer.without[row], layer.lift[row]
            for unit in range(layer.units):
                yield HeadNeedles(
                    layer=layer.name,
                    unit=unit,
                    depth=self.depths[row],
                    entropy=float(layer.entropy[row, :, unit].mean()),
                    lost=over_texts(of_mean(lost[:, unit]).interval(), self.excerpts),
                    share=float(layer.share[row, :, unit].mean()),
                    lift=over_texts(of_mean(lift[:, unit]).interval(looks), self.excerpts, -1, 1),
                )

    def _layer(self, layer: LayerNeedles, row: int) -> dict[str, Any]:
        relation = self.relation(layer.name, self.depths[row])
        return {
            "layer": layer.name,
            "kind": layer.kind,
            "joint": layer.joint is not None,
            "entropy": float(layer.carried[row].mean()),
            "relation": finite(relation.value),
            "relation_interval": relation.ends,
        }


def _told(head: HeadNeedles) -> dict[str, Any]:
    return {
        "layer": head.layer,
        "unit": head.unit,
        "entropy": head.entropy,
        "lost": head.lost.value,
        "lost_interval": head.lost.ends,
        "share": head.share,
        "lift": head.lift.value,
        "lift_interval": head.lift.ends,
    }


def _row(head: HeadNeedles) -> Row:
    return {
        "depth": head.depth,
        "layer": head.layer,
        "head": str(head.unit),
        "entropy-ESS": head.entropy,
        "lost without the needle": signed(head.lost),
        "share of the question’s row": f"{head.share:.1%}",
        "beyond plain text": signed(head.lift, "+.3f"),
    }
