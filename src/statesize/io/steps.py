"""What a command does and how long that takes, by steps of each kind that were timed: in a plan, and while it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from statesize.io.text import byte_count, counted


@dataclass(frozen=True)
class PlannedStep:
    """Work of one kind.

    Attributes:
        name: What is done.
        count: How often.
        seconds: Predicted time of all of it.
    """

    name: str
    count: float
    seconds: float

    @property
    def cells(self) -> dict[str, str]:
        """What a row of a table says of it beside its name and seconds, by headings."""
        return {"how often": f"{self.count:,.0f}"}


Planned = TypeVar("Planned", bound=PlannedStep, covariant=True)


@dataclass(frozen=True, repr=False)
class Plan(Generic[Planned]):
    """What a command would do, and about how long that takes.

    Attributes:
        steps: One entry for each kind of work, such as a layer, a cut, or runs that are alike.
        seconds: Predicted time of the whole, once the model is loaded.
        work: A sentence on what is done.
        memory: Predicted peak of the process's memory in bytes, with the model; None where it is not known.
        skipped: What is not done, and why.
        facts: Further numbers, by name.
    """

    steps: tuple[Planned, ...]
    seconds: float
    work: str = ""
    memory: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: Mapping[str, float] = field(default_factory=dict[str, float])

    def __repr__(self) -> str:
        """What it would take, for what, and what would be left out, a line each.

        Returns:
            Lines of text.
        """
        memory = "" if self.memory is None else f" and {byte_count(self.memory)} of memory with the model"
        lines = [f"About {self.seconds:,.1f} s{memory}", *filter(None, [self.work])]
        if self.skipped:
            lines.append(f"{counted(len(self.skipped), 'layer')} cannot be measured: .skipped says why")
        return "\n".join([*lines, "next: .steps has the time of each"])


def evenly_spread(count: int, total: int) -> list[int]:
    """Indices of so many of some things that follow each other, or of all where they are fewer."""
    count = min(count, total)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


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

    @contextmanager
    def timed(self, kind: str, cost: float = 1.0) -> Generator[None]:
        """Time steps that cost so much together."""
        start = perf_counter()
        yield
        self.took(kind, perf_counter() - start, cost)

    def took(self, kind: str, seconds: float, cost: float = 1.0) -> None:
        """Say that steps of a kind, which cost so much together, took some time."""
        self._seconds[kind] += seconds
        self.done[kind] += cost

    def each(self, kind: str) -> float:
        """Seconds for a cost of 1; 0 for a kind of which nothing was timed."""
        return self._seconds[kind] / self.done[kind] if self.done[kind] else 0.0

    def plan(self) -> Plan[PlannedStep]:
        """What all steps take."""
        steps = tuple(PlannedStep(kind, cost, cost * self.each(kind)) for kind, cost in self.costs.items())
        return Plan(steps, sum(step.seconds for step in steps))

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
