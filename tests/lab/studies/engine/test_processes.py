"""Runs in other processes: the same rows, also when a worker is killed."""

import dataclasses
import os
import signal
from functools import partial

from statesize.lab.studies.correlation import STUDY
from statesize.lab.studies.engine.run import run_study
from statesize.parallel.executor import Processes


def test_the_same_rows_when_workers_are_killed(grid, outcomes, workers_of, without_time, tmp_path):
    few, killed = dataclasses.replace(grid, runs=grid.runs[::2]), []

    def kill(done, number):
        if not killed:
            killed.extend(workers_of())
            os.kill(killed[0], signal.SIGKILL)

    result = run_study(STUDY, few, tmp_path, partial(Processes, workers=2), kill)
    assert len(killed) == 2
    assert without_time(result.rows) == without_time([row for run in few.runs for row in outcomes[run.key].value])
    assert workers_of() == []
