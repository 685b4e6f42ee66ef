"""Work on a real Ray of this machine: each value comes once, whenever a worker is killed."""

import os
import signal

import pytest

from statesize.cli.shared.options import Workers
from statesize.errors import InputError, StatesizeError
from statesize.parallel.ray import ATTEMPTS, RayCluster

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


def counting(folder, at, times):
    """Work of the values 0, 1 and 2, whose worker is killed at one of these places, 3 being the end, so many times."""

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def work(task):
        for value in range(4):
            if value == at and len(list(folder.iterdir())) < times:
                (folder / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if value < 3:
                yield value

    return lambda: work


# Before the first value, between two, and after the last.
@pytest.mark.parametrize("at", [pytest.param(0, marks=pytest.mark.slow), 1, 3])
def test_values_that_came_before_a_worker_was_killed_come_once(ray, at, tmp_path):
    with RayCluster()(counting(tmp_path, at, 1)) as workers:
        assert [done.get() for done in workers.run(["task"])] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_task_ends_that_kills_its_workers_at_the_same_value(ray, tmp_path):
    with RayCluster()(counting(tmp_path, 1, 99)) as workers:
        first, last = list(workers.run(["task"]))
    assert first.get() == 0
    with pytest.raises(StatesizeError, match="3 workers in a row were lost at task"):
        last.get()
    assert len(list(tmp_path.iterdir())) == ATTEMPTS


def test_the_gpus_that_a_command_asks_for_are_asked_of_ray(ray, tmp_path):
    crew = Workers(True, ray_gpus=0.25).cluster()
    with crew(counting(tmp_path, 9, 0)) as workers, pytest.raises(InputError, match=r"1 cores, 0\.25 GPUs"):
        list(workers.run(["task"]))


def test_processes_alone_are_on_ray_and_as_many_as_are_asked_for(ray, tmp_path):
    assert Workers().cluster() is Workers(processes=1).cluster() is None
    assert Workers(True).cluster(gpus=1.0) == RayCluster(gpus=1.0)

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def process(task):
        yield os.getpid()

    for count in (1, 2):
        crew = Workers(True, processes=count).cluster()
        assert crew == (Workers(processes=count).cluster() or RayCluster(processes=1))
        with crew(lambda: process) as workers:
            assert len({done.get() for done in workers.run(range(8))}) <= count
