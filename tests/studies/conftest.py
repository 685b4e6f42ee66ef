"""Small runs, and the processes that do them."""

import os
from pathlib import Path

import pytest

from statesize.studies.settings import parse_settings

GRID = """
[model]
mixer = ["la", "gla"]
key_size = 2
width = 8
heads = 2
layers = 1
mlp_factor = 1
convolution_size = 2
decay_bias = 0.0
[training]
steps = 6
batch_size = 4
rate = [6e-3, 1.2e-2]
weight_decay = 0.0
[measuring]
every = 4
sequences = 2
[[task]]
name = "mqar"
pairs = [2, 3]
length = 12
vocabulary_size = 12
held_out_sequences = 8
"""


@pytest.fixture(scope="session")
def settings():
    return parse_settings(GRID, "correlation")


@pytest.fixture(scope="session")
def runs(settings):
    return settings.runs


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
    return lambda word="statesize.studies.worker": descendants(os.getpid(), word)


@pytest.fixture(name="without_time")
def _without_time():
    return without_time
