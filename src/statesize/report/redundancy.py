"""What layers need one by one, beside what the whole network needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import altair as alt

from statesize.io.json_values import json_values
from statesize.io.text import counted, facts_table
from statesize.measurement import vega
from statesize.measurement.chart import index_of, json_number
from statesize.report.names import short_names

STORED = "stored (TSS)"
ALONE = "needed if heads shared nothing"
NEEDED = "needed (entropy-ESS)"


_HINTS = (
    vega.hint("part", "part"),
    vega.hint("kind", "kind"),
    vega.hint("group", "numbers"),
    vega.hint("numbers", "how many", ",.1f"),
    vega.hint("state_bytes", "bytes of its cache", ",d"),
)


@dataclass(frozen=True)
class MixerNeeds:
    """One mixer at some cuts, all channels that it stores together.

    Attributes:
        name: The mixer.
        kind: What it is.
        state_bytes: Bytes that the model's own cache holds for it at the end of the sequence; NaN if unknown.
        stored: Numbers that its state holds at each cut: TSS times channels; 0 where another mixer keeps its cache, NaN
            if unknown.
        needed: Entropy-ESS summed over these channels; what several heads read counts once, by their joint ESS.
        alone: Entropy-ESS summed over the channels of all heads, as if they shared nothing.
        grows: Whether it stores more the longer the text is.
    """

    name: str
    kind: str
    state_bytes: float
    stored: tuple[float, ...]
    needed: tuple[float, ...]
    alone: tuple[float, ...]
    grows: bool = False


@dataclass(frozen=True)
class Redundancy:
    """How many numbers the layers need one by one, and how many the whole network needs.

    Attributes:
        model: Name of the model.
        length: Tokens of the text.
        positions: The cuts.
        dimension: The smaller side of the network's Jacobian at each cut.
        whole: The network's entropy-ESS at each cut.
        interval: Between which numbers it lies.
        mixers: What each needs, in the order of their calls, short convolutions among them.
        skipped: Mixers that could not be measured, and why; layers that mix no positions are none.
    """

    model: str
    length: int
    positions: tuple[int, ...]
    dimension: tuple[int, ...]
    whole: tuple[float, ...]
    interval: tuple[tuple[float, float], ...]
    mixers: tuple[MixerNeeds, ...]
    skipped: Mapping[str, str]

    @property
    def stored(self) -> tuple[float, ...]:
        """Numbers that all states hold at each cut."""
        return tuple(sum(mixer.stored[index] for mixer in self.mixers) for index in range(len(self.positions)))

    @property
    def alone(self) -> tuple[float, ...]:
        """The sum over all heads at each cut, as if they shared nothing."""
        return tuple(sum(mixer.alone[index] for mixer in self.mixers) for index in range(len(self.positions)))

    @property
    def needed(self) -> tuple[float, ...]:
        """The sum over layers at each cut."""
        return tuple(sum(mixer.needed[index] for mixer in self.mixers) for index in range(len(self.positions)))

    @property
    def values(self) -> tuple[float, ...]:
        """What the layers need in sum, divided by what the network needs, at each cut.

        NaN at cuts where all states together hold as many numbers as one side of the Jacobian, because there the text
        limits the network and not its layers; and where a mixer could not be measured, or its size is unknown.
        """
        return tuple(
            needed / whole if stored < dimension and whole and not self.skipped else math.nan
            for needed, whole, stored, dimension in zip(
                self.needed, self.whole, self.stored, self.dimension, strict=True
            )
        )

    def cached(self, index: int) -> float:
        """Numbers that caches hold at a cut, which grow with the text.

        Args:
            index: Index of the cut.

        Returns:
            Their number.
        """
        return sum(mixer.stored[index] for mixer in self.mixers if mixer.grows)

    def reason(self, index: int) -> str:
        """Why there is no value at a cut; empty where there is one.

        Args:
            index: Index of the cut.

        Returns:
            A sentence, or nothing.
        """
        if not math.isnan(self.values[index]):
            return ""
        if self.skipped:
            return f"The redundancy cannot be told: these mixers were not measured: {', '.join(self.skipped)}."
        if math.isnan(self.stored[index]):
            unknown = ", ".join(mixer.name for mixer in self.mixers if math.isnan(mixer.stored[index]))
            return f"The redundancy cannot be told: the sizes of these mixers' states are unknown: {unknown}."
        cut, stored, most = self.positions[index], self.stored[index], self.dimension[index]
        caches = self.cached(index)
        enough = "A longer text does not help, because the caches grow with the text."
        if caches < most:
            tokens = min(cut, self.length - cut) * (stored - caches) // (most - caches) + 1
            enough = f"Take a text of about {tokens:,.0f} tokens or more on both sides of the cut."
        return (
            f"The redundancy cannot be told at {cut}: the states can hold {stored:,.0f} numbers, and the text before "
            f"or after the cut allows {most:,}, so the text is the limit of what passes, not the layers. {enough}"
        )

    def middle_text(self) -> str:
        """What layers and network need at the middle cut, in words."""
        middle = len(self.positions) // 2
        low, high = self.interval[middle]
        sums = (
            f"{self.model}, cut at {self.positions[middle]}: the layers need {self.needed[middle]:,.0f} numbers in "
            f"sum, the network {self.whole[middle]:,.0f} ({low:,.0f} to {high:,.0f})."
        )
        return f"{sums} {self.reason(middle) or f'The redundancy is {self.values[middle]:.2f}.'}"

    def __repr__(self) -> str:
        """What layers and network need, what was not measured, and what to do next, a line each.

        Returns:
            Lines of text.
        """
        lost = [f"Not measured: {counted(len(self.skipped), 'layer')}; .skipped says why"] if self.skipped else []
        return "\n".join([self.middle_text(), *lost, "next: .plot(), .values, .to_dict()"])

    def plot(self, position: int | None = None, *, paper: bool = False) -> alt.LayerChart:
        """Numbers stored and needed, layer by layer, of all layers and of the network, at a cut.

        Args:
            position: The cut; None takes the middle one.
            paper: Whether it is as wide as a column of a paper, for `.save("name.pdf")`.

        Returns:
            A chart by altair.
        """
        index = index_of(position, self.positions)
        names = short_names([mixer.name for mixer in self.mixers])
        rows = [
            {"part": names[mixer.name], "kind": mixer.kind, "group": group, "numbers": json_number(numbers[index])}
            | {"state_bytes": json_number(mixer.state_bytes)}
            for mixer in self.mixers
            for group, numbers in ((STORED, mixer.stored), (ALONE, mixer.alone), (NEEDED, mixer.needed))
            if group != ALONE or mixer.alone != mixer.needed
        ]
        sums = {"kind": "", "state_bytes": json_number(sum(mixer.state_bytes for mixer in self.mixers))}
        for name, group, number in (
            ("all layers", STORED, self.stored[index]),
            ("all layers", NEEDED, self.needed[index]),
            ("network", NEEDED, self.whole[index]),
        ):
            rows.append({"part": name, "group": group, "numbers": json_number(number)} | sums)
        rows.sort(key=lambda row: (STORED, ALONE, NEEDED).index(row["group"]))
        title = f"{self.model}, cut at {self.positions[index]}"
        y = alt.Y("numbers:Q", title="Numbers")
        return vega.bars({"parts": rows}, vega.layer_axis("part"), y, "group", _HINTS, title, paper=paper)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it.

        Returns:
            A mapping of names to numbers, text and lists.
        """
        return json_values(vars(self) | {name: getattr(self, name) for name in ("values", "stored", "needed")})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; another mapping is a KeyError or TypeError.

        Args:
            document: The mapping.

        Returns:
            The result.
        """
        numbers = ("stored", "needed", "alone")

        def known(value: Any) -> Any:
            return math.nan if value is None else value

        mixers = tuple(
            MixerNeeds(
                **mixer
                | {"state_bytes": known(mixer["state_bytes"])}
                | {name: tuple(map(known, mixer[name])) for name in numbers}
            )
            for mixer in document["mixers"]
        )
        rows = {name: tuple(document[name]) for name in ("positions", "dimension", "whole")}
        interval = tuple((low, high) for low, high in document["interval"])
        model, length, skipped = (document[name] for name in ("model", "length", "skipped"))
        return cls(model, length, **rows, interval=interval, mixers=mixers, skipped=skipped)

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"model": self.model}
        for index, position in enumerate(self.positions):
            sums = f"{self.needed[index]:.1f} needed by layers, {self.whole[index]:.1f} by the network"
            facts[f"cut {position}"] = f"{sums}. {self.reason(index) or f'Redundancy {self.values[index]:.2f}.'}"
        return facts_table("Redundancy", facts)
