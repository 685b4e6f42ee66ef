"""What a command does and how long that takes, by steps of each kind that were timed while it runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

_FEWEST_TIMED = 3
"""Steps after which a first forecast is told."""


@dataclass(eq=False)
class Steps:
    """The steps of a run.

    Attributes:
        costs: For each kind the cost of all of its steps, to which their seconds are in proportion: how many they are,
            where each takes as long as any other.
        done: For each kind the cost of those that were timed.
    """

    costs: dict[str, float]
    done: defaultdict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    _seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))

    def took(self, kind: str, seconds: float, cost: float = 1.0) -> None:
        """Say that steps of a kind, which cost so much together, took some time."""
        self._seconds[kind] += seconds
        self.done[kind] += cost

    def each(self, kind: str) -> float:
        """Seconds for a cost of 1; 0 for a kind of which nothing was timed."""
        return self._seconds[kind] / self.done[kind] if self.done[kind] else 0.0

    @property
    def first_left(self) -> float | None:
        """The same as `left`, with kinds that were not timed as long as the quickest other; None before three steps."""
        if sum(self.done.values()) < _FEWEST_TIMED:
            return None
        # What runs first prepares what the rest uses, and takes several times as long.
        unknown = sum(cost for kind, cost in self.costs.items() if not self.done[kind])
        return self.left + unknown * min(self.each(kind) for kind, done in self.done.items() if done)

    @property
    def left(self) -> float:
        """Predicted for the steps that are not done yet."""
        return sum(max(0.0, cost - self.done[kind]) * self.each(kind) for kind, cost in self.costs.items())
