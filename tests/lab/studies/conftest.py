"""Small runs, and the processes that do them."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

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


def descendants(parent, word):
    """Processes below a process whose command line has a word."""
    parents, found = {}, []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
            if word.encode() in command:
                found.append(int(folder.name))

    def below(process):
        while process not in {0, 1, parent}:
            process = parents.get(process, 0)
        return process == parent

    return [process for process in found if process != parent and below(process)]


@pytest.fixture
def workers_of():
    return lambda: descendants(os.getpid(), "ray::Worker")


@pytest.fixture(name="without_time")
def _without_time():
    return without_time
