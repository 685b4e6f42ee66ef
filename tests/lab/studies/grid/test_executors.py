"""Runs in this process and in others: the same rows, also when a worker is killed."""

import dataclasses
import os
import signal
from functools import partial

from statesize.lab.studies.grid.executors import HERE, OtherProcesses, local_executor
from statesize.lab.studies.grid.user_code import UserModule
from statesize.parallel.executor import Processes


def processes(workers, module=None):
    return OtherProcesses(partial(Processes, workers=workers), module)


def rows_of(outcomes, without_time):
    return {outcome.task.key: without_time(outcome.value) for outcome in outcomes}


def test_one_worker_is_this_process():
    assert local_executor(1) is HERE


def test_the_same_rows_when_a_worker_is_killed(runs, replay, workers_of, without_time):
    runs, found, killed = runs[::2], [], []
    for outcome in processes(2).run(runs):
        found.append(outcome)
        if not killed:
            killed = workers_of()
            os.kill(killed[0], signal.SIGKILL)
    assert len(killed) == 2
    assert not any(outcome.error for outcome in found)
    assert rows_of(found, without_time) == rows_of(replay.run(runs), without_time)
    assert workers_of() == []


def test_what_cannot_be_done_is_told(runs, tmp_path):
    run = dataclasses.replace(runs[0], training=dataclasses.replace(runs[0].training, device="abacus"))
    (here,) = HERE.run([run])
    assert "got 'abacus'" in str(here.error)
    # In another process it is told alike; what one's own code raises is told too, and not tried again.
    seen = tmp_path / "seen"
    source = f"""
from statesize.lab.studies.grid.grid import INTERVENTIONS
def fail(model):
    with open({str(seen)!r}, "a") as file:
        file.write("once ")
    raise ValueError("two\\nlines")
INTERVENTIONS["open_gates"] = fail
"""
    chosen = [run, dataclasses.replace(runs[0], intervention="open_gates")]
    elsewhere, failed = processes(1, UserModule("own.py", source)).run(chosen)
    assert (elsewhere.task, str(elsewhere.error)) == (run, str(here.error))
    assert (failed.value, str(failed.error)) == (None, "ValueError: two lines")
    assert seen.read_text() == "once "


def test_workers_end_with_the_iterator(runs, workers_of):
    outcomes = processes(1).run(runs)
    next(outcomes)
    assert len(workers_of()) == 1
    outcomes.close()
    assert workers_of() == []


def test_a_run_whose_process_is_always_killed_is_given_up(runs):
    source = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (outcome,) = processes(1, UserModule("own.py", source)).run(runs[:1])
    assert str(outcome.error).startswith(f"3 workers in a row were lost at {runs[0].label} (its process was killed)")
