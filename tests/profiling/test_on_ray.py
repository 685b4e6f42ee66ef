"""Profiles on a real Ray of this machine: killed workers, resuming, errors, and the same numbers as one process."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
import torch
from oracles.profiles import same

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.models.load import load_model
from statesize.profiling import Profile, RayCluster, profile
from statesize.profiling.run import run_profile

SEQUENCES = [list(range(40, 64)), [3, 1, 4, 1, 5, 9, 2], list(range(30)), list(range(7, 19))]
SMALL = ModelConfig(mixer="gla", layers=2, key_size=3, heads=2, width=8, vocabulary_size=64)
# Where a worker does not come or go, the slow ones too would wait for ever.
pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.timeout(600)]


def descendants(process):
    """Processes below one."""
    tasks = Path(f"/proc/{process}/task")
    children = [int(child) for task in tasks.glob("*/children") for child in task.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def listening(processes):
    """Addresses, in hexadecimal, at which processes take connections."""
    addresses = {}
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                addresses[f"socket:[{words[9]}]"] = words[1]
    found = set()
    for process in processes:
        for file in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):
                found.add(addresses.get(os.readlink(file)))
    return found - {None}


def test_nobody_else_can_reach_it(ray):
    """Ray runs what it is sent: all of its processes listen to this machine alone, and there is no dashboard."""
    places = {place.rpartition(":")[::2] for place in listening([os.getpid(), *descendants(os.getpid())])}
    assert places
    # 127.0.0.1 and its form in IPv6.
    assert {address for address, _ in places} <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert 8265 not in {int(port, 16) for _, port in places}


@pytest.fixture
def model():
    return LanguageModel(SMALL, torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_worker_is_killed_in_the_middle(tmp_path):
    pids, told = tmp_path / "pids", []
    pids.mkdir()

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def load():
        (pids / str(os.getpid())).touch()
        return load_model("gla")

    def kill(progress):
        told.append(progress)
        if len(told) == 2:
            first = min(pids.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            os.kill(int(first.name), signal.SIGKILL)

    result = run_profile(load, SEQUENCES, Settings(), cluster=RayCluster(), output=tmp_path / "out", on_progress=kill)
    assert len(list(pids.iterdir())) >= 2
    steps = [(step.sequence, step.mixer) for step in told]
    assert sorted(steps) == [(sequence, mixer) for sequence in range(4) for mixer in range(4)]
    assert not any(step.resumed for step in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pids"]
    loaded = load_model("gla")
    expected = run_profile(loaded.model, SEQUENCES, Settings(), name="gla", source=loaded.source)
    assert same(result, expected)
    assert same(Profile.load(tmp_path / "out"), expected)


class Stop(Exception):
    """An interrupt at a chosen unit."""


def test_a_cluster_and_one_process_go_on_from_each_other(model, tmp_path):
    def stop_at(place):
        def stop(progress):
            if (progress.sequence, progress.mixer) == place and not progress.resumed:
                raise Stop

        return stop

    asked = {"settings": Settings(tolerances=(1e-3, 1e-1), channels=1, positions=3)}
    kept = {"output": tmp_path / "out", **asked}
    with pytest.raises(Stop):
        profile(model, SEQUENCES[:1], on_progress=stop_at((0, 0)), **kept, executor=RayCluster())
    with pytest.raises(Stop):
        profile(model, SEQUENCES[:1], on_progress=stop_at((0, 1)), **kept)
    told = []
    result = profile(model, iter(SEQUENCES[:1]), on_progress=told.append, **kept, executor=RayCluster())
    assert [(step.mixer, step.resumed) for step in told] == [(0, True), (1, True)]
    assert same(result, profile(model, SEQUENCES[:1], **asked))
    assert os.listdir(tmp_path) == ["out"]


def test_a_worker_that_no_machine_has_room_for(model):
    with pytest.raises(InputError, match="9000000500000000"):
        profile(model, SEQUENCES, memory="9000000 GB", executor=RayCluster())
    with pytest.raises(InputError):
        RayCluster(cpus=0)
