"""A real Ray of this machine: each value comes once, whenever a worker is killed."""

import os
import signal
import threading

import pytest
from torch import nn

from statesize.cli.shared.options import ray_cluster
from statesize.errors import InputError, ModelError, StatesizeError
from statesize.parallel.ray import RayCluster, shared

# The warnings are Ray's own; where no worker comes, the slow ones too would wait for ever.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]


def counting(folder, at, times):
    """Work of the values 0, 1 and 2, whose worker is killed at one of these places, 3 being the end, times by task."""

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def work(task):
        for value in range(4):
            if value == at and len(list(folder.glob(f"{task}-*"))) < times[task]:
                (folder / f"{task}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if value < 3:
                yield value

    return lambda: work


# Before the first value, between two, and after the last.
@pytest.mark.parametrize("at", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)])
def test_each_value_comes_once_whenever_a_worker_is_killed_and_a_task_ends_that_kills_all(
    ray, at, tmp_path, monkeypatch
):
    monkeypatch.setattr("statesize.parallel.ray.ATTEMPTS", 2)
    with RayCluster(processes=1)(counting(tmp_path, at, {"once": 1, "always": 99})) as workers:
        *values, last = workers(["once", "always"])
    # What a worker made just before its end may be lost with it.
    came = [done.get() for done in values]
    assert len(came) >= 3
    assert came == [0, 1, 2, *range(at)][: len(came)]
    with pytest.raises(StatesizeError, match="lost 2 times, the last time at always"):
        last.get()
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["always", "once"]


def test_the_gpus_that_a_command_asks_for_are_asked_of_ray(ray, tmp_path):
    with (
        RayCluster(gpus=0.25)(counting(tmp_path, 9, {})) as workers,
        pytest.raises(InputError, match=r"1 CPU, 0\.25 GPU"),
    ):
        list(workers(["task"]))


def test_processes_alone_are_on_ray_and_as_many_as_are_asked_for(ray, tmp_path):
    assert ray_cluster(False) is None
    assert ray_cluster(True, gpus=1.0) == RayCluster(gpus=1.0)

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def process(task):
        yield os.getpid()

    with RayCluster(processes=1)(lambda: process) as workers:
        assert len({done.get() for done in workers(range(8))}) == 1


def test_what_cannot_be_copied(ray):
    model = nn.ReLU()
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match="lock"):
        shared(ray, model)
