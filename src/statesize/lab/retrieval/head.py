"""What one head has of a needle."""

from __future__ import annotations

from dataclasses import dataclass

from statesize.measurement.statistics import Interval


@dataclass(frozen=True)
class HeadNeedles:
    """One head or channel at one depth.

    Attributes:
        layer: The layer.
        unit: Number of the head or channel.
        depth: Tokens from needle to question.
        entropy: Its entropy-ESS at the cut before the question, the mean over texts.
        lost: How much of it goes with the columns of the needle, with an interval of 95 % over texts.
        share: The share of the needle in the squares of the question's row, the mean over texts.
        lift: How much more that is than the share of plain text there, with an interval of 95 % over texts,
            corrected for the number of heads (Bonferroni).
    """

    layer: str
    unit: int
    depth: int
    entropy: float
    lost: Interval
    share: float
    lift: Interval
