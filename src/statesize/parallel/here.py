"""Work in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from statesize.errors import StatesizeError
from statesize.parallel.executor import Done, Task, Work


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
            values = iter(self.work(task))
            while True:
                try:
                    value = next(values)
                except StopIteration:
                    break
                except StatesizeError as error:
                    yield Done(task, error=error)
                    break
                yield Done(task, value)
                # It would keep an operator or a record alive while the next one is made.
                del value
