"""Runs on a real local Ray: the rows of this process, also when a worker is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

from statesize.errors import InputError
from statesize.lab.studies.correlation import Correlation
from statesize.lab.studies.engine.run import run_study
from statesize.parallel.ray import RayCluster

STUDY = Correlation()


def below(process):
    """Processes that one has begun, and those that these have."""
    children = [
        int(child) for task in Path(f"/proc/{process}/task").glob("*/children") for child in task.read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in below(child)]


def workers():
    return [one for one in below(os.getpid()) if b"ray::Worker" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(600)  # where a worker does not go, it would wait for ever
@pytest.mark.filterwarnings("default")  # Ray's own
def test_the_same_rows_when_a_worker_is_killed(grid, runs, outcomes, without_time, tmp_path):
    pytest.importorskip("ray")
    killed = []

    def kill(done, number):
        if not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    result = run_study(STUDY, grid, tmp_path, RayCluster(), kill)
    assert without_time(result.rows) == without_time([row for run in runs for row in outcomes[run.key].value])
    while workers():
        time.sleep(0.1)


def test_an_address_where_nothing_answers(grid, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="the Ray address"):
        run_study(STUDY, grid, tmp_path, RayCluster("127.0.0.1:1"))
