"""A real Ray of this machine: each value comes once, whenever a worker is killed; what is refused before it starts."""

import os
import signal
import sys

import pytest

from statesize.cli.shared.options import ray_cluster
from statesize.errors import FileError, InputError, StatesizeError
from statesize.parallel.ray import RayCluster, available_cores, ray_session

# Importing it sets variables of the environment.
module = pytest.importorskip("ray")
# The warnings are Ray's own; where no worker comes, the slow ones too would wait for ever.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]


def refusal(address=None):
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(StatesizeError) as caught, ray_session(address):
        pass
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before
    return caught.value


def test_ray_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert isinstance(refusal(), FileError)


@pytest.mark.parametrize("address", ["somewhere", "http://host", "host:port", ":99999"])
def test_an_address_that_is_none(address):
    assert address in str(refusal(address))


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_ray_does_not_start(monkeypatch):
    # A time-out of its own takes minutes, and needs a machine that is out of memory or processes.
    def init(**options):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(module, "init", init)
    assert "The current node timed out during startup." in str(refusal())


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
    with RayCluster(cpus=available_cores())(counting(tmp_path, at, {"once": 1, "always": 99})) as workers:
        *values, last = workers(["once", "always"])
    # What a worker made just before its end may be lost with it.
    came = [done.get() for done in values]
    assert len(came) >= 3
    assert came == [0, 1, 2, *range(at)][: len(came)]
    with pytest.raises(StatesizeError, match="at always"):
        last.get()
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["always", "once"]


def test_what_a_command_asks_for_is_asked_of_ray(ray, tmp_path):
    assert ray_cluster(False) is None
    assert ray_cluster(True, gpus=1.0) == RayCluster(gpus=1.0)
    with RayCluster(gpus=0.25)(counting(tmp_path, 9, {})) as workers, pytest.raises(InputError):
        list(workers(["task"]))
