"""How long a command takes, by steps of each kind that were timed while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

_FEWEST_TIMED = 3
"""Steps after which a first forecast is told."""


@dataclass(eq=False)
class Steps:
    """The steps of a run.

    Attributes:
        costs: For each kind the cost of all of its steps, to which their seconds are in proportion: how many they are,
            where each takes as long as any other.
    """

    costs: dict[str, float]
    _done: dict[str, float] = field(default_factory=dict[str, float])
    _seconds: dict[str, float] = field(default_factory=dict[str, float])

    def took(self, kind: str, seconds: float, cost: float = 1.0) -> None:
        """Say that steps of a kind, which cost so much together, took some time."""
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds
        self._done[kind] = self._done.get(kind, 0.0) + cost

    @property
    def first_left(self) -> float | None:
        """Seconds predicted for the steps that are not done yet; None before three steps."""
        if sum(self._done.values()) < _FEWEST_TIMED:
            return None
        each = {kind: self._seconds[kind] / done for kind, done in self._done.items() if done}
        # What runs first prepares what the rest uses, and takes several times as long: kinds that were not timed are
        # as long as the quickest other.
        quickest = min(each.values())
        left = {kind: max(0.0, cost - self._done.get(kind, 0.0)) for kind, cost in self.costs.items()}
        return sum(cost * each.get(kind, quickest) for kind, cost in left.items())
