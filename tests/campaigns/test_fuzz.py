"""Random hostile calls of every public function: a right answer within its bound, or an error that names the argument.

One call again: `python -m campaigns.fuzz --first NUMBER --calls 1`.
"""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from cProfile import Profile
from pathlib import Path

import pytest
import torch
from oracles import exact

import statesize as ss
from campaigns.fuzz import answers, campaign
from campaigns.fuzz.campaign import FUNCTIONS, Campaign
from campaigns.fuzz.guard import HangError, time_limit, watched
from campaigns.fuzz.hostile import Source
from statesize import adapters, operators, profiling
from statesize.lab import mixers, tasks

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "campaigns.fuzz"]
PACKAGES = (
    ss,
    ss.lab.training,
    ss.lab.zoo,
    adapters,
    mixers,
    operators,
    profiling,
    tasks,
)
NOT_CALLED = {
    "RayCluster": "processes on a cluster",
    "python_prose": "reads the whole standard library, takes no argument",
    "ProfileProgress": "what `profile` tells its caller",
    "run_study": "a grid of trainings",
    "series": "loads models from folders, one after another",
    "Series": "what `series` gives",
    "length": "measures one text at many lengths",
    "Growth": "what `length` gives",
    "load": "asks the hub for what is nowhere",
    "RunFolder": "what `train` writes to",
    "Derivative": "takes a function, of which none is random",
}
OF_MANY = ("settings", "tasks", "texts", "paths", "training", "network_ess")
"""Generators that call one of many functions, some of them seldom."""


def public_codes() -> dict[int, str]:
    """Every public function, and what makes objects of every public class, by the identity of its code."""
    found: dict[int, str] = {}
    for package in PACKAGES:
        for name in getattr(package, "__all__", [name for name in vars(package) if not name.startswith("_")]):
            value = getattr(package, name)
            if not hasattr(package, "__all__") and getattr(value, "__module__", "") != package.__name__:
                continue
            if inspect.isclass(value) and not issubclass(value, Exception):
                value = vars(value).get("__post_init__", vars(value).get("__init__"))
            if inspect.isfunction(value) and value.__module__.startswith("statesize"):
                found[id(inspect.unwrap(value).__code__)] = name
    return {code: name for code, name in found.items() if name not in NOT_CALLED}


def test_hundreds_of_calls_of_every_public_function() -> None:
    left = public_codes()
    assert len(left) > 60

    def seen(call: Callable[..., object], *arguments: object) -> None:
        # A trace in Python takes as long as the calls that it sees.
        profiler = Profile(subcalls=False, builtins=False)
        profiler.runcall(call, *arguments)
        for entry in profiler.getstats():
            left.pop(id(entry.code), None)

    found = Campaign()
    seen(found.run, range(400))
    for number in range(100):
        for name in OF_MANY:
            if left:
                seen(watched, [], FUNCTIONS[name][1](Source.of(number, 0)).run, 30)
    assert not found.findings, "\n".join(map(str, found.findings))
    assert set(found.answered) | set(found.refused) == set(FUNCTIONS)
    assert sorted(left.values()) == []


@pytest.mark.slow
def test_the_command_writes_what_it_found_and_goes_on_from_there(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.json"
    for calls in ("3", "8"):
        subprocess.run([*COMMAND, "--calls", calls, "--output", str(path), "--resume"], cwd=ROOT, check=True)
    document = json.loads(path.read_text())
    assert sum(document["answered"].values()) + sum(document["refused"].values()) == document["calls"] == 8
    found = Campaign()
    found.run(range(8))
    assert document["answered"] == dict(found.answered)
    other = [*COMMAND, "--seed", "1", "--output", str(path), "--resume"]
    assert b"holds calls from 0 of seed 0" in subprocess.run(other, capture_output=True, cwd=ROOT, check=False).stderr


@pytest.mark.slow
def test_many_calls_of_another_seed(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.json"
    command = [*COMMAND, "--seed", "1", "--calls", "20000", "--output", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert json.loads(path.read_text())["findings"] == []


def test_calls_are_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = Campaign(3), Campaign(3)
    one.run(range(40))
    other.run(range(20))
    other.run(range(20, 40))
    assert one == other


def test_changes_are_noticed() -> None:
    tensor = torch.ones(2, 3)

    def changing() -> None:
        tensor[0, 0] = 2
        torch.manual_seed(0)

    state = torch.get_rng_state()
    try:
        torch.rand(1)
        _, found = watched([tensor], changing, 5)
    finally:
        torch.set_rng_state(state)
    assert found == ["changed torch's random state", "changed an input tensor"]


def test_hangs_are_noticed() -> None:
    def hang() -> None:
        with time_limit(0.05):
            while True:
                pass

    with pytest.raises(HangError):
        hang()


def test_wrong_answers_are_noticed() -> None:
    generator = torch.Generator().manual_seed(0)
    T = torch.randn(8, 8, generator=generator, dtype=torch.float64).tril()
    truth = exact.spectra(exact.wide(T), list(range(1, 8)), None, None)
    outputs = ("counts", "entropy", "values")
    assert answers.wrong_measurement(ss.measure(ss.Dense(T), outputs=outputs), truth) == []
    wrong = ss.measure(ss.Dense(T * (1 + 1e-9)), outputs=outputs)
    assert any("values are off" in problem for problem in answers.wrong_measurement(wrong, truth))
    other = ss.measure(ss.Dense(T.flip(0, 1).mT), outputs=outputs)
    told = " ".join(answers.wrong_measurement(other, truth))
    assert all(name in told for name in ("norm", "values", "entropy"))


def test_bad_refusals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ss.errors.InputError("no")

    monkeypatch.setattr(ss, "measure", refuse)
    monkeypatch.setattr(campaign, "FUNCTIONS", {"measure": FUNCTIONS["measure"]})
    found = Campaign()
    monkeypatch.setattr(campaign.models, "whole_profile", lambda: None)
    found.run(range(30))
    told = " ".join(finding.problem for finding in found.findings)
    assert "refused, though nothing is wrong" in told
    assert "an error that names none of" in told
