"""Small runs, and what they give."""

import pytest
from small_studies import GRID

from statesize.lab.studies.engine.grid import training_runs
from statesize.lab.studies.engine.training import train_and_measure
from statesize.parallel.threads import Done


@pytest.fixture(scope="session")
def runs():
    return training_runs(GRID)


@pytest.fixture(scope="session")
def outcomes(runs):
    """What each of the runs gives, by its key."""
    return {run.key: Done(run, train_and_measure(run)) for run in runs}
