"""Work in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from statesize.parallel.executor import Done, Task, Work, answers


@dataclass(frozen=True)
class Here:
    """One task after another, each taken when the one before is done; errors that are not ours are raised as they are.

    Attributes:
        work: What is done.
    """

    work: Work

    def run(self, tasks: Iterable[Task]) -> Iterator[Done[Task, Any]]:
        """The values of all tasks, in order."""
        for task in tasks:
            for value, error in answers(self.work, task):
                yield Done(task, value, error)
                del value
