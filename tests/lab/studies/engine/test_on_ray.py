"""Runs on a real local Ray: the rows of this process."""

from functools import partial

import pytest

from statesize.errors import InputError
from statesize.lab.studies.correlation import STUDY
from statesize.lab.studies.engine.run import run_study
from statesize.parallel.ray import ray_workers


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_the_same_rows(grid, outcomes, without_time, tmp_path):
    pytest.importorskip("ray")
    result = run_study(STUDY, grid, tmp_path, partial(ray_workers, memory=2**28))
    assert without_time(result.rows) == without_time([row for run in grid.runs for row in outcomes[run.key].value])


def test_an_address_where_nothing_answers(grid, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="nothing answers at the Ray address"):
        run_study(STUDY, grid, tmp_path, partial(ray_workers, address="127.0.0.1:1"))
