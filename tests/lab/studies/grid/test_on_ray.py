"""Runs on a real local Ray: the table of the local executor, also when a worker is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from small_studies import GRID, RUNNING_AVERAGE

from statesize.errors import InputError
from statesize.lab.mixers import registry
from statesize.lab.studies.grid.executors import HERE, ray_executor
from statesize.lab.studies.grid.settings import Execution, parse_settings
from statesize.lab.studies.grid.user_code import UserModule, load_module
from statesize.parallel.ray import ray_session


@contextlib.contextmanager
def own_handler():
    """A handler of SIGTERM that is not the system's, for the time of a block."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_the_same_rows_when_a_worker_is_killed(runs, workers_of, without_time):
    pytest.importorskip("ray")
    killed, stop = [], threading.Event()

    def kill_the_first():
        while not killed and not stop.wait(0.005):
            for process in workers_of("ray::Worker"):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return

    watcher = threading.Thread(target=kill_the_first)
    watcher.start()
    try:
        found = list(ray_executor(None, Execution(memory=2**28)).run(runs))
    finally:
        stop.set()
        watcher.join()
    assert killed
    assert not any(outcome.error for outcome in found)
    rows = {outcome.task.key: without_time(outcome.value) for outcome in found}
    assert rows == {outcome.task.key: without_time(outcome.value) for outcome in HERE.run(runs)}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_mixer_of_ones_own(without_time, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(registry, "_REGISTERED", {})
    module = UserModule("on_ray.py", RUNNING_AVERAGE)
    load_module(module)
    runs = parse_settings(GRID.replace('["la", "gla"]', '"average"'), "correlation").runs[:2]
    found = list(ray_executor(None, Execution(memory=2**28), module).run(runs))
    rows = {outcome.task.key: without_time(outcome.value) for outcome in found}
    assert rows == {outcome.task.key: without_time(outcome.value) for outcome in HERE.run(runs)}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_runs_that_are_killed_that_fail_and_that_are_too_large(runs, without_time, tmp_path):
    pytest.importorskip("ray")
    mark = tmp_path / "killed"
    kill_once = f"""
import os, signal
from pathlib import Path
if not Path({str(mark)!r}).exists():
    Path({str(mark)!r}).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    fail = """
from statesize.lab.studies.grid.grid import INTERVENTIONS
def fail(model):
    raise ValueError("two\\nlines")
INTERVENTIONS["none"] = fail
"""

    def found(source, chosen):
        return list(ray_executor(None, Execution(memory=2**28), UserModule("on_ray.py", source)).run(chosen))

    with own_handler() as handler, ray_session():
        assert signal.getsignal(signal.SIGTERM) is handler
        with pytest.raises(InputError, match=r"has the 1 cores, 64 GPUs and 1\.1 GB that a worker asks for"):
            list(ray_executor(None, Execution(gpus=64.0)).run(runs))
        rows = {outcome.task.key: without_time(outcome.value) for outcome in found(kill_once, runs[:2])}
        assert rows == {outcome.task.key: without_time(outcome.value) for outcome in HERE.run(runs[:2])}
        (failed,) = found(fail, runs[:1])
        assert (failed.value, str(failed.error)) == (None, "ValueError: two lines")
        (given_up,) = found("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", runs[:1])
        assert str(given_up.error).startswith(f"3 workers in a row were lost at {runs[0].label}")
    assert signal.getsignal(signal.SIGTERM) is not handler


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_address_of_a_cluster(runs, without_time):
    ray = pytest.importorskip("ray")
    with ray_session():
        address = ray.get_runtime_context().gcs_address
        program = f"""
import json
from statesize.parallel.ray import ray_session
from statesize.lab.studies.grid.executors import ray_executor
from statesize.lab.studies.grid.grid import TrainingRun
from statesize.lab.studies.grid.settings import Execution
run = TrainingRun.from_dict(json.loads({json.dumps(json.dumps(runs[0].to_dict()))}))
(outcome,) = ray_executor({address!r}, Execution(memory=2**28)).run([run])
print(json.dumps([outcome.error, outcome.value]))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    error, rows = json.loads(done.stdout)
    assert not error
    assert without_time(rows) == without_time(next(HERE.run(runs[:1])).value)


def test_an_address_where_nothing_answers(runs):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="nothing answers at the Ray address"):
        next(ray_executor("127.0.0.1:1", Execution()).run(runs))
