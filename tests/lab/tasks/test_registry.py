"""Tasks by name: built-in ones, one's own, and what is wrong with a configuration."""

import tomllib
from dataclasses import dataclass

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import (
    MQAR,
    Compression,
    Rebinding,
    SelectiveCopying,
    SyntheticTask,
    build_task,
    register_task,
    registry,
    task_names,
    task_settings,
)


@pytest.fixture(autouse=True)
def leave_the_registry(monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


@dataclass(frozen=True)
class Echo(SyntheticTask):
    """Every token is its own answer."""

    vocabulary_size: int
    length: int = 4
    loud: bool = False

    items = 1
    chance = 1.0

    def sample(self, batch_size, generator):
        tokens = torch.randint(self.vocabulary_size, (batch_size, self.length), generator=generator)
        return tokens, tokens


def test_settings_of_a_toml_table():
    settings = tomllib.loads('name = "mqar"\npairs = 4\nlength = 20\nquery_share = 1\n')
    assert build_task(settings) == MQAR(4, 20)
    assert build_task({"name": "selective_copying"}) == SelectiveCopying()


@pytest.mark.parametrize(
    "task", [MQAR(5, gap_power=0.2), SelectiveCopying(3, held_out_seed=4), Compression(4, 5), Rebinding(2)]
)
def test_settings_build_an_equal_task(task):
    assert build_task(task_settings(task)) == task


def test_a_task_of_ones_own_takes_one_call():
    register_task("echo", Echo)
    assert task_names()[:2] == ("mqar", "selective_copying")
    assert task_names()[-1] == "echo"
    task = build_task({"name": "echo", "vocabulary_size": 7, "loud": True})
    assert task == Echo(vocabulary_size=7, loud=True)
    assert task_settings(task)["loud"] is True
    assert [len(inputs) for inputs, _ in task.held_out(200)] == [200, 56]
    register_task("echo", Echo)


def build_incomplete():
    @dataclass(frozen=True)
    class Incomplete(SyntheticTask):
        length: int = 4

    return Incomplete


def build_of_text():
    @dataclass(frozen=True)
    class OfText(Echo):
        text: str = ""

    return OfText


def build_undecorated():
    class Undecorated(Echo):
        more: int = 4

    return Undecorated


@pytest.mark.parametrize(
    ("name", "task", "words"),
    [
        ("mqar", Echo, ["name must be one that no other task has, got 'mqar', that of MQAR."]),
        (
            "mine",
            build_incomplete(),
            ["task must have chance, items, sample, vocabulary_size", "got Incomplete"],
        ),
        ("mine", build_of_text(), ["OfText.text", "str", "int, float and bool only"]),
        ("mine", build_undecorated(), ["task must be a dataclass, got Undecorated.", "@dataclass(frozen=True)"]),
        ("mine", int, ["task must be a class that inherits", "<class 'int'>"]),
        ("mine", MQAR(), ["task must be a class that inherits", "MQAR("]),
    ],
)
def test_what_cannot_be_registered_is_one_clear_line(name, task, words):
    with pytest.raises(InputError) as caught:
        register_task(name, task)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "mine" not in task_names()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "mqr"}, ["task name must be one of mqar, selective_copying, compression", "got 'mqr'"]),
        ({"pairs": 4}, ["task name must be one of ", "got None"]),
        ({"name": ["mqar"]}, ["task name must be one of ", "got ['mqar']"]),
        ({"name": "mqar", "pair": 4}, ["number of task mqar must be one of", "got 'pair'. Did you mean pairs?"]),
        ({"name": "compression", "zzz": 4}, ["must be one of tokens, symbols, held_out_sequences", "got 'zzz'."]),
        ({"name": "mqar", "pairs": "4"}, ["pairs must be ", "whole number", "got '4'."]),
        ({"name": "mqar", "pairs": 40}, ["pairs must be at most 32", "got 40."]),
        ({"name": "echo"}, ["Task echo cannot be built", "vocabulary_size"]),
        ({"name": "echo", "vocabulary_size": 3, "loud": 1}, ["loud must be ", "true or false", "got 1."]),
    ],
)
def test_settings_that_do_not_fit_are_one_clear_line(settings, words):
    register_task("echo", Echo)
    with pytest.raises(InputError) as caught:
        build_task(settings)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_settings_of_a_task_that_nobody_registered():
    with pytest.raises(InputError, match=r"task must be registered, got .*Echo. Register it with register_task"):
        task_settings(Echo(vocabulary_size=3))
