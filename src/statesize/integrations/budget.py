"""How many heads may be measured in the time that there is."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

FEWEST_HEADS = 2
"""Heads or channels of a layer that a reading takes at least; from a single one no error could be told."""
MARGIN = 1.25
"""By how much a reading may take longer than the one before it told."""


@dataclass(frozen=True)
class Cost:
    """What the last reading cost."""

    fixed: float  # seconds that it took besides measuring, most of them forward passes
    head: float  # seconds for each head or channel
    units: tuple[int, ...]  # heads or channels of each layer

    def seconds(self, heads: int) -> float:
        """Predicted seconds of a reading of at most so many heads or channels of each layer."""
        return self.fixed + self.head * sum(min(heads, units) for units in self.units)


def affordable_heads(cost: Cost, seconds: float) -> int:
    """The most heads or channels of each layer that can be measured in some time.

    Args:
        cost: What the last reading cost.
        seconds: The time.

    Returns:
        Their number, up to that of the widest layer; 0 where the fewest do not fit.

    Example:
        >>> cost = Cost(fixed=0.5, head=0.1, units=(4, 16))
        >>> [affordable_heads(cost, seconds) for seconds in (0.9, 2.0, 3.0, 9.0)]
        [0, 7, 14, 16]
    """
    most = max(cost.units)
    heads = bisect_right(range(1, most + 1), seconds, key=lambda heads: MARGIN * cost.seconds(heads))
    return heads if heads >= min(FEWEST_HEADS, most) else 0
