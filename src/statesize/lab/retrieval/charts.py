"""The charts of needles: their gain for the model, and what each head sees of them, against their distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from statesize.lab.retrieval.layer import HeadNeedles
from statesize.measurement.chart import Axis, Chart, Layer, table
from statesize.measurement.statistics import Interval

_DISTANCE = Axis("Tokens from needle to question", "log")


def gain_chart(depths: Sequence[int], gains: Sequence[Interval]) -> Chart:
    """Nats that the needle takes off the answer, at each depth."""
    rows = table(
        depth=depths,
        gain=[interval.value for interval in gains],
        low=[interval.low for interval in gains],
        high=[interval.high for interval in gains],
    )
    return Chart(
        _DISTANCE,
        Axis("Nats off the answer"),
        (
            Layer("band", "found", "single heads", "depth", "low", end="high"),
            Layer("line", "found", "mean", "depth", "gain", points=True),
        ),
        title="How many nats the needle takes off the answer, with the interval over texts",
        height=240,
        tables={"found": rows},
        legend=False,
    )


def lift_chart(heads: Iterable[HeadNeedles]) -> Chart:
    """How much more of the question's row the needle has than plain text, a line a head."""
    rows = [{"head": f"{head.layer}, {head.unit}", "depth": head.depth, "lift": head.lift.value} for head in heads]
    return Chart(
        _DISTANCE,
        Axis("Share of the question’s row beyond plain text"),
        (Layer("line", "heads", "single heads", "depth", "lift", by="head", points=True),),
        title="What each head sees of the needle",
        tables={"heads": rows},
        legend=False,
    )
