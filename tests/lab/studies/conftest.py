"""Small runs, and the processes that do them."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
from small_studies import GRID

from statesize.lab.studies.engine.grid import training_runs
from statesize.lab.studies.engine.training import train_and_measure
from statesize.parallel.threads import Done


@pytest.fixture(scope="session")
def grid():
    return GRID


@pytest.fixture(scope="session")
def runs(grid):
    return training_runs(grid)


@pytest.fixture(scope="session")
def outcomes(runs):
    """What each of the runs gives, by its key."""
    return {run.key: Done(run, train_and_measure(run)) for run in runs}


@dataclass
class Replay:
    outcomes: dict

    def __call__(self, tasks):
        return (self.outcomes[run.key] for run in tasks)


@pytest.fixture
def replay(outcomes):
    """Who has done the runs before."""
    return lambda make: nullcontext(Replay(outcomes))


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(name="without_time")
def _without_time():
    return without_time
